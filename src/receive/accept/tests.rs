use super::*;
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS_MAX: usize = 3;
/// No test waits for this long.
const FOREVER: Duration = Duration::from_secs(3600);
const BOUND: Duration = Duration::from_secs(60);
const ENDLESS: Patience = Patience { first_words: FOREVER, unspoken: FOREVER, spoken: FOREVER, look_interval: FOREVER };

struct Port {
    address: SocketAddr,
    dismissed: Counter,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// A port that sends back what comes.
async fn port(patience: Patience) -> Port {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, dismissed) = (socket.local_addr().unwrap(), Counter::default());
    let shutdown = CancellationToken::new();
    let bounds = Bounds { connections_max: CONNECTIONS_MAX, patience, dismissed: dismissed.clone() };
    let stop = shutdown.clone();
    let serve = move |mut connection: Connection, _| {
        let stop = stop.clone();
        async move {
            let echo = async {
                let mut bytes = [0; 256];
                while let Ok(read @ 1..) = connection.read(&mut bytes).await {
                    let _ = connection.write_all(&bytes[..read]).await;
                }
            };
            let _ = stop.run_until_cancelled(echo).await;
        }
    };
    let task = tokio::spawn(accept(socket.into(), Address::Ip(address), bounds, shutdown.clone(), serve));
    Port { address, dismissed, shutdown, task }
}

impl Port {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(BOUND, self.task).await.expect("it ends").unwrap();
    }
}

/// Says something and hears it back.
async fn speak(stream: &mut TcpStream) {
    let words = [7; 100];
    stream.write_all(&words).await.unwrap();
    let mut heard = [0; 100];
    tokio::time::timeout(BOUND, stream.read_exact(&mut heard)).await.expect("served").unwrap();
    assert_eq!(heard, words);
}

async fn is_closed(stream: &mut TcpStream) {
    let read = tokio::time::timeout(BOUND, stream.read(&mut [0])).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn connections_that_say_nothing_make_room_for_those_that_come() {
    let port = port(Patience { unspoken: Duration::ZERO, ..ENDLESS }).await;
    let mut talking = port.connect().await;
    speak(&mut talking).await;
    let mut silent = Vec::new();
    for _ in 0..2 * CONNECTIONS_MAX {
        silent.push(port.connect().await);
    }
    for _ in 0..CONNECTIONS_MAX {
        let mut fresh = port.connect().await;
        speak(&mut fresh).await;
        drop(fresh);
    }
    speak(&mut talking).await;
    // At most two had a place beside the one that talks.
    for stream in silent.iter_mut().take(CONNECTIONS_MAX) {
        is_closed(stream).await;
    }
    assert!(port.dismissed.get() >= CONNECTIONS_MAX as u64, "{}", port.dismissed.get());
    port.stop().await;
}

#[tokio::test]
async fn of_connections_that_spoke_the_longest_silent_one_goes() {
    let port = port(Patience { spoken: Duration::ZERO, ..ENDLESS }).await;
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = port.connect().await;
        speak(&mut stream).await;
        streams.push(stream);
        // So that silences differ by more than a clock's grain.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    speak(&mut streams[0]).await;
    let mut fresh = port.connect().await;
    speak(&mut fresh).await;
    is_closed(&mut streams[1]).await;
    assert_eq!(port.dismissed.get(), 1);
    port.stop().await;
}

#[tokio::test]
async fn no_more_are_told_to_go_while_those_told_before_are_still_there() {
    let address = Address::Ip("127.0.0.1:0".parse().unwrap());
    let connections = Connections::new(address, CONNECTIONS_MAX, Patience { unspoken: Duration::ZERO, ..ENDLESS });
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        held.push(Box::pin(connections.place().await.hold(std::future::pending())));
    }
    for left in (0..CONNECTIONS_MAX).rev() {
        connections.make_room();
        connections.make_room();
        // Who is told to go is dropped here, which gives the place back.
        held.retain_mut(|place| place.now_or_never().is_none());
        assert_eq!(held.len(), left);
    }
}

#[tokio::test]
async fn who_says_nothing_in_time_is_closed_though_there_is_room() {
    let soon = Duration::from_millis(50);
    let port = port(Patience { first_words: soon, look_interval: soon, ..ENDLESS }).await;
    let mut talking = port.connect().await;
    speak(&mut talking).await;
    let mut silent = port.connect().await;
    silent.write_all(b"PRI * ").await.unwrap();
    let mut echoed = [0; 6];
    silent.read_exact(&mut echoed).await.unwrap();
    is_closed(&mut silent).await;
    speak(&mut talking).await;
    port.stop().await;
}
