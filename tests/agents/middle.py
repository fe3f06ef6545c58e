"""The middle of the chain: each request asks the far end, whose port is the first argument. Prints its own port on the first line."""

import logging
import sys
from urllib.request import urlopen
from wsgiref.simple_server import make_server

import falcon


class Reviews:
    def on_get(self, _request, response):
        logging.warning("asking for a rating")
        with urlopen(f"http://127.0.0.1:{int(sys.argv[1])}/ratings") as answer:
            response.text = answer.read().decode()


# On stderr, where the agent's complaints go as well then.
logging.basicConfig()
application = falcon.App()
application.add_route("/reviews", Reviews())
server = make_server("127.0.0.1", 0, application)
print(server.server_port, flush=True)
server.serve_forever()
