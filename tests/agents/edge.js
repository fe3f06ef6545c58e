// The near end of the chain: each request asks the middle, whose port is the first argument. Prints its own port on the first line.
'use strict';
const http = require('node:http');

const reviews = `http://127.0.0.1:${Number(process.argv[2])}/reviews`;
const server = http.createServer((request, response) => {
  const asked = http.get(reviews, (answer) => {
    response.writeHead(answer.statusCode);
    answer.pipe(response);
  });
  asked.on('error', (error) => response.writeHead(502).end(String(error)));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
