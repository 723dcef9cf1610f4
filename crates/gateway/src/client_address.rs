//! Who a client is: the other end of the socket, or whom a trusted proxy there speaks for (`spec/gateway.md` 10.3,
//! `decisions.md` 1). Pure.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

use crate::headers::FORWARDED_FOR;

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress {
    /// Where it is, as far as that can be trusted. Never an IPv4 address in its IPv6 form.
    pub(crate) ip: IpAddr,
    /// Whether it is on this machine, and so is everybody who has passed its request on.
    pub(crate) is_local: bool,
}

impl ClientAddress {
    /// Reads it from the socket's other end and the lines of `x-forwarded-for`.
    ///
    /// Each proxy adds the address that it was called from at the right, so the list is walked from there for as long as
    /// the one who vouches for an entry is trusted: what an untrusted one claims, to its left, means nothing. An entry that
    /// is no address ends the walk as well, at whoever passed it on.
    pub(crate) fn of(peer: IpAddr, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let mut client = Self { ip: peer, is_local: peer.is_loopback() };
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
            if !trusted_proxies.iter().any(|network| network.contains(&client.ip)) {
                break;
            }
            let Some(ip) = address(entry) else {
                client.is_local = false;
                break;
            };
            client.ip = ip;
            client.is_local &= ip.is_loopback();
        }
        client
    }
}

/// An address with or without a port, as proxies write them: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(IpAddr::to_canonical(&ip))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> Vec<IpNet> {
        ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "fc00::/7"].map(|network| network.parse().unwrap()).to_vec()
    }

    fn client(peer: &str, lines: &[&str]) -> ClientAddress {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        ClientAddress::of(peer.parse().unwrap(), &headers, &trusted())
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_nobody_else() {
        let local = true;
        for (peer, lines, ip, is_local) in [
            // Without a proxy.
            ("203.0.113.9", &[][..], "203.0.113.9", false),
            ("::ffff:203.0.113.9", &[], "203.0.113.9", false),
            ("127.0.0.1", &[], "127.0.0.1", local),
            ("::1", &[], "::1", local),
            ("::ffff:127.0.0.1", &[], "127.0.0.1", local),
            // A client that claims to be somebody else.
            ("203.0.113.9", &["8.8.8.8"], "203.0.113.9", false),
            ("203.0.113.9", &["127.0.0.1"], "203.0.113.9", false),
            // One proxy, with what the client had claimed to its left.
            ("127.0.0.1", &["198.51.100.1"], "198.51.100.1", false),
            ("10.1.2.3", &["198.51.100.1"], "198.51.100.1", false),
            ("::ffff:10.1.2.3", &["198.51.100.1"], "198.51.100.1", false),
            ("10.1.2.3", &["8.8.8.8, 127.0.0.1, 198.51.100.1"], "198.51.100.1", false),
            ("10.1.2.3", &["8.8.8.8", "198.51.100.1"], "198.51.100.1", false),
            // Several proxies, over several lines.
            ("127.0.0.1", &["8.8.8.8, 198.51.100.1", "10.0.0.7 , fc00::5"], "198.51.100.1", false),
            // A client within a trusted network.
            ("127.0.0.1", &["10.0.0.8, 10.0.0.7"], "10.0.0.8", false),
            ("10.0.0.7", &["127.0.0.1"], "127.0.0.1", false),
            ("127.0.0.1", &["::1"], "::1", local),
            // Spellings.
            ("10.0.0.7", &["::ffff:198.51.100.1"], "198.51.100.1", false),
            ("10.0.0.7", &["198.51.100.1:4711"], "198.51.100.1", false),
            ("10.0.0.7", &["2001:db8::1"], "2001:db8::1", false),
            ("10.0.0.7", &["[2001:db8::1]"], "2001:db8::1", false),
            ("10.0.0.7", &["[2001:db8::1]:80"], "2001:db8::1", false),
            ("10.0.0.7", &["198.51.100.1,, ", ""], "198.51.100.1", false),
            // What is no address: whoever passed it on, and that is nobody on this machine.
            ("10.0.0.7", &["unknown"], "10.0.0.7", false),
            ("127.0.0.1", &["8.8.8.8, _hidden"], "127.0.0.1", false),
            ("127.0.0.1", &["8.8.8.8, nonsense, 10.0.0.7"], "10.0.0.7", false),
            ("127.0.0.1", &["[198.51.100.1"], "127.0.0.1", false),
        ] {
            let expected = ClientAddress { ip: ip.parse().unwrap(), is_local };
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    proptest! {
        /// The client can write anything into the header; the proxy adds what it sees.
        #[test]
        fn what_a_client_claims_changes_nothing(claims in proptest::collection::vec("[ -~]{0,40}", 0..4)) {
            let mut lines: Vec<&str> = claims.iter().map(String::as_str).collect();
            prop_assert_eq!(client("203.0.113.9", &lines), client("203.0.113.9", &[]));
            lines.push("203.0.113.9");
            let expected = ClientAddress { ip: "203.0.113.9".parse().unwrap(), is_local: false };
            prop_assert_eq!(client("127.0.0.1", &lines), expected);
        }
    }
}
