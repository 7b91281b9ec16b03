//! A TCP relay that cuts connections after a given number of bytes.

use std::{collections::VecDeque, sync::Arc, sync::Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

/// Relays to `target`, an `http://` address. The n-th connection carries `budgets[n]` bytes to the client and is then
/// closed; connections after those carry everything.
pub async fn start(target: &str, budgets: &[u64]) -> String {
    let target = target.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let budgets = Arc::new(Mutex::new(VecDeque::from(budgets.to_vec())));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let budget = budgets.lock().expect("no panic while locked").pop_front();
            let server = TcpStream::connect(&target).await.expect("the fake listens");
            for socket in [&client, &server] {
                socket.set_nodelay(true).expect("a TCP socket");
            }
            tokio::spawn(relay(client, server, budget.unwrap_or(u64::MAX)));
        }
    });
    address
}

async fn relay(client: TcpStream, server: TcpStream, budget: u64) {
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let down = async {
        // Either side may hang up first; that is what this relay is for.
        let _ = copy(&mut from_server.take(budget), &mut to_client).await;
        let _ = to_client.flush().await;
    };
    tokio::select! {
        () = down => {}
        _ = copy(&mut from_client, &mut to_server) => {}
    }
}
