//! Finds the broker once, at the start, so that a wrong address is an error at once and not a connection that hangs.

use super::TapError;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long the broker may take to accept the connection that tests it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The first address of `upstream` (host:port) that accepts a connection. The connection is closed again unused; a
/// broker may log it.
pub(super) fn find(upstream: &str) -> Result<SocketAddr, TapError> {
    let addresses = upstream
        .to_socket_addrs()
        .map_err(|source| TapError::UpstreamName { upstream: upstream.to_owned(), source })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, PROBE_TIMEOUT) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(TapError::UpstreamUnreachable { upstream: upstream.to_owned(), source: last })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listening_address_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(find(&address.to_string()).unwrap(), address);
    }

    #[test]
    fn errors_name_the_upstream_and_the_remedy() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let unreachable = find(&free.to_string()).unwrap_err();
        assert!(matches!(unreachable, TapError::UpstreamUnreachable { .. }));
        assert!(unreachable.to_string().contains(&free.to_string()), "{unreachable}");
        let nameless = find("127.0.0.1").unwrap_err();
        assert!(matches!(nameless, TapError::UpstreamName { .. }));
        assert!(nameless.to_string().contains("host:port"), "{nameless}");
    }
}
