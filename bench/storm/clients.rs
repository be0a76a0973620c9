//! Clients over plain sockets, so that thousands of them cost the load little.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The request for `path`.
pub(crate) fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: sluice\r\n{headers}\r\n")
}

/// Sends the request for a stream.
pub(crate) async fn open(
    address: SocketAddr,
    path: &str,
    headers: &str,
) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request(path, headers).as_bytes()).await?;
    Ok(stream)
}

/// Reads and throws away what comes, until nothing waits. Returns how many bytes; `None`: the end.
pub(crate) async fn drain(stream: &TcpStream, buffer: &mut [u8]) -> Option<usize> {
    stream.readable().await.ok()?;
    let mut all = 0;
    loop {
        match stream.try_read(buffer) {
            Ok(0) => return None,
            Ok(count) => all += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(all),
            Err(_) => return None,
        }
    }
}
