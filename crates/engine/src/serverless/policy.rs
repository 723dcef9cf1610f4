//! Where the engine may send requests of its own (`spec/scheduling.md` 9.9, `spec/engine-api.md` 8.4, `decisions.md` 12).
//!
//! Users name the URLs, and the engine often stands where they do not: beside a cloud's metadata service, or inside a company's
//! network. What a URL says is checked before anything is resolved, and what its name resolves to right before it is connected
//! to, so that no second answer of a name server gets in between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

use crate::config::{Network, Outbound};

/// Why a request is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Blocked {
    #[error("scheme \"{0}\" is not allowed, expected http or https")]
    Scheme(String),
    #[error("plaintext http is not allowed, use https")]
    Plaintext,
    #[error("url must not contain embedded credentials")]
    Credentials,
    #[error("address {address} is not an allowed destination ({class})")]
    Class { address: IpAddr, class: &'static str },
    #[error("address {0} is explicitly denied")]
    Denied(IpAddr),
    #[error("failed to resolve host \"{0}\"")]
    Unresolved(String),
    #[error("host {0} resolved to no allowed addresses")]
    NoneAllowed(String),
    #[error("exceeded the maximum of {0} redirects")]
    Redirects(u32),
}

/// The rules, from the configuration section `outbound`.
#[derive(Debug)]
pub(crate) struct Policy {
    loopback: bool,
    private_networks: bool,
    plaintext: bool,
    allowed: Vec<Network>,
    denied: Vec<Network>,
    /// In lower case.
    allowed_hosts: Vec<String>,
    max_redirects: u32,
}

impl Policy {
    pub(crate) fn new(settings: &Outbound) -> Self {
        Self {
            loopback: settings.loopback_allowed(),
            private_networks: settings.private_networks_allowed(),
            plaintext: settings.insecure_scheme_allowed(),
            allowed: settings.allow_cidrs.clone(),
            denied: settings.deny_cidrs.clone(),
            allowed_hosts: settings.allow_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            max_redirects: settings.max_redirects,
        }
    }

    /// How many redirects a request follows.
    pub(crate) fn max_redirects(&self) -> u32 {
        self.max_redirects
    }

    /// Checks what a URL says by itself. An address in it is checked here; a name is when it is resolved.
    pub(crate) fn check_url(&self, url: &Url) -> Result<(), Blocked> {
        match url.scheme() {
            "https" => {}
            "http" if self.plaintext => {}
            "http" => return Err(Blocked::Plaintext),
            scheme => return Err(Blocked::Scheme(scheme.to_owned())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Blocked::Credentials);
        }
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            // http and https URLs always have a host; without one nothing could be connected to.
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        self.check_address(url.host_str().unwrap_or_default(), address)
    }

    /// Those of a name's addresses that may be connected to; at least one.
    pub(crate) fn filter<A: Into<IpAddr> + Copy>(&self, host: &str, addresses: &[A]) -> Result<Vec<A>, Blocked> {
        if addresses.is_empty() {
            return Err(Blocked::Unresolved(host.to_owned()));
        }
        let allowed: Vec<A> =
            addresses.iter().copied().filter(|address| self.check_address(host, (*address).into()).is_ok()).collect();
        if allowed.is_empty() { Err(Blocked::NoneAllowed(host.to_owned())) } else { Ok(allowed) }
    }

    fn check_address(&self, host: &str, address: IpAddr) -> Result<(), Blocked> {
        if self.denied.iter().any(|network| network.contains(address)) {
            return Err(Blocked::Denied(address));
        }
        let host_is_exempt = self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host));
        if host_is_exempt || self.allowed.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        let Some((reach, class)) = classify(address) else { return Ok(()) };
        let allowed = match reach {
            Reach::Loopback => self.loopback,
            Reach::Private => self.private_networks,
            Reach::Special => false,
        };
        if allowed { Ok(()) } else { Err(Blocked::Class { address, class }) }
    }
}

/// Which switch opens a class of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Loopback,
    /// Networks that nobody outside of them can reach. Self-hosters run there.
    Private,
    /// None: only a list does.
    Special,
}

/// Addresses at which clouds hand out credentials, outside of the link-local range where most of them are.
const CLOUD_METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const CLOUD_METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];
const CLOUD_METADATA: &str = "cloud metadata";

const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), prefix))
}

const fn v6(a: u16, b: u16, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix))
}

/// Networks that are not the public internet. The first that holds an address names its class.
const SPECIAL: &[(IpNet, Reach, &str)] = &[
    (v4(127, 0, 0, 8), Reach::Loopback, "loopback"),
    (v4(10, 0, 0, 8), Reach::Private, "private"),
    (v4(172, 16, 0, 12), Reach::Private, "private"),
    (v4(192, 168, 0, 16), Reach::Private, "private"),
    (v4(100, 64, 0, 10), Reach::Private, "shared"),
    (v4(0, 0, 0, 8), Reach::Special, "unspecified"),
    (v4(169, 254, 0, 16), Reach::Special, "link-local"),
    (v4(192, 0, 0, 24), Reach::Special, "protocol-assignments"),
    (v4(192, 0, 2, 24), Reach::Special, "documentation"),
    (v4(198, 51, 100, 24), Reach::Special, "documentation"),
    (v4(203, 0, 113, 24), Reach::Special, "documentation"),
    (v4(198, 18, 0, 15), Reach::Special, "benchmarking"),
    (v4(224, 0, 0, 4), Reach::Special, "multicast"),
    (IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)), Reach::Special, "broadcast"),
    (v4(240, 0, 0, 4), Reach::Special, "reserved"),
    (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)), Reach::Loopback, "loopback"),
    (v6(0xfc00, 0, 7), Reach::Private, "unique-local"),
    (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)), Reach::Special, "unspecified"),
    (v6(0xfe80, 0, 10), Reach::Special, "link-local"),
    (v6(0xfec0, 0, 10), Reach::Special, "site-local"),
    (v6(0xff00, 0, 8), Reach::Special, "multicast"),
    (v6(0x2001, 0xdb8, 32), Reach::Special, "documentation"),
    (v6(0x3fff, 0, 20), Reach::Special, "documentation"),
    (v6(0x0100, 0, 64), Reach::Special, "discard"),
    // An IPv4 address inside of an IPv6 one goes wherever a translator takes it: NAT64, its local form, 6to4, Teredo, and the
    // old compatible form.
    (v6(0x64, 0xff9b, 32), Reach::Special, "ipv4-embedded"),
    (v6(0x2002, 0, 16), Reach::Special, "ipv4-embedded"),
    (v6(0x2001, 0, 32), Reach::Special, "ipv4-embedded"),
    (v6(0, 0, 96), Reach::Special, "ipv4-embedded"),
];

/// The class of an address that is not simply a place on the internet. The mapped form of an IPv4 address is that address.
fn classify(address: IpAddr) -> Option<(Reach, &'static str)> {
    let address = address.to_canonical();
    let is_cloud_metadata = match address {
        IpAddr::V4(address) => CLOUD_METADATA_V4.contains(&address),
        IpAddr::V6(address) => CLOUD_METADATA_V6.contains(&address),
    };
    if is_cloud_metadata {
        return Some((Reach::Special, CLOUD_METADATA));
    }
    SPECIAL.iter().find(|(network, ..)| network.contains(&address)).map(|(_, reach, class)| (*reach, *class))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn refusal(settings: &Outbound, text: &str) -> Option<String> {
        Policy::new(settings).check_url(&url(text)).err().map(|blocked| blocked.to_string())
    }

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| Network::try_from((*text).to_owned()).unwrap()).collect()
    }

    #[test]
    fn what_a_url_says_is_checked() {
        let settings = Outbound::default();
        for fine in ["https://example.com/x", "http://127.0.0.1:1", "http://[::1]/", "http://10.1.2.3", "http://100.64.0.1"] {
            assert_eq!(refusal(&settings, fine), None, "{fine}");
        }
        let refused = [
            ("ftp://example.com/", "scheme \"ftp\" is not allowed, expected http or https"),
            ("https://user@example.com/", "url must not contain embedded credentials"),
            ("https://:secret@example.com/", "url must not contain embedded credentials"),
            ("http://169.254.169.254/", "address 169.254.169.254 is not an allowed destination (link-local)"),
            // The same address in spellings that a URL may have.
            ("http://0xa9fea9fe/", "address 169.254.169.254 is not an allowed destination (link-local)"),
            ("http://2852039166/", "address 169.254.169.254 is not an allowed destination (link-local)"),
            ("http://[::ffff:169.254.169.254]/", "address ::ffff:169.254.169.254 is not an allowed destination (link-local)"),
        ];
        for (text, reason) in refused {
            assert_eq!(refusal(&settings, text).as_deref(), Some(reason), "{text}");
        }
    }

    #[test]
    fn strict_is_the_public_internet_over_https() {
        let settings = Outbound { strict: true, ..Outbound::default() };
        assert_eq!(refusal(&settings, "https://example.com/"), None);
        assert_eq!(refusal(&settings, "http://example.com/").as_deref(), Some("plaintext http is not allowed, use https"));
        let reason = "address 10.0.0.1 is not an allowed destination (private)";
        assert_eq!(refusal(&settings, "https://10.0.0.1/").as_deref(), Some(reason));
        let reason = "address ::1 is not an allowed destination (loopback)";
        assert_eq!(refusal(&settings, "https://[::1]/").as_deref(), Some(reason));
        let reason = "address fd12::1 is not an allowed destination (unique-local)";
        assert_eq!(refusal(&settings, "https://[fd12::1]/").as_deref(), Some(reason));
    }

    #[test]
    fn lists_go_before_classes_and_denial_before_all() {
        let settings = Outbound {
            strict: true,
            allow_cidrs: networks(&["169.254.0.0/16", "10.0.0.0/8"]),
            deny_cidrs: networks(&["10.9.0.0/16", "8.8.8.8"]),
            allow_hosts: vec!["Inner.Example".to_owned(), "10.9.9.9".to_owned()],
            ..Outbound::default()
        };
        assert_eq!(refusal(&settings, "https://169.254.169.254/"), None);
        assert_eq!(refusal(&settings, "https://10.8.0.1/"), None);
        for denied in ["10.9.9.9", "8.8.8.8"] {
            let reason = format!("address {denied} is explicitly denied");
            assert_eq!(refusal(&settings, &format!("https://{denied}/")), Some(reason));
        }
        let policy = Policy::new(&settings);
        let resolved: Vec<IpAddr> = vec![Ipv4Addr::new(192, 168, 0, 1).into(), Ipv4Addr::new(10, 9, 0, 1).into()];
        assert_eq!(policy.filter("inner.example", &resolved), Ok(vec![resolved[0]]));
        assert_eq!(policy.filter("other.example", &resolved), Err(Blocked::NoneAllowed("other.example".to_owned())));
    }

    #[test]
    fn only_allowed_addresses_of_a_name_are_used() {
        let policy = Policy::new(&Outbound::default());
        let public = IpAddr::from([203, 1, 113, 1]);
        let link_local = IpAddr::from([169, 254, 0, 1]);
        assert_eq!(policy.filter("h", &[link_local, public]), Ok(vec![public]));
        assert_eq!(policy.filter("h", &[link_local]).unwrap_err().to_string(), "host h resolved to no allowed addresses");
        assert_eq!(policy.filter::<IpAddr>("h", &[]).unwrap_err().to_string(), "failed to resolve host \"h\"");
    }

    #[test]
    fn every_class_has_its_word() {
        let words = [
            ("0.1.2.3", "unspecified"),
            ("192.0.0.8", "protocol-assignments"),
            ("192.0.2.1", "documentation"),
            ("198.19.255.255", "benchmarking"),
            ("239.0.0.1", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("100.100.100.200", "cloud metadata"),
            ("168.63.129.16", "cloud metadata"),
            ("fd00:ec2::254", "cloud metadata"),
            ("::", "unspecified"),
            ("fe80::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
            ("2001:db8::1", "documentation"),
            ("100::1", "discard"),
            ("64:ff9b::a00:1", "ipv4-embedded"),
            ("2002:a00:1::", "ipv4-embedded"),
            ("2001:0:1::", "ipv4-embedded"),
            ("::10.0.0.1", "ipv4-embedded"),
        ];
        for (address, word) in words {
            assert_eq!(classify(address.parse().unwrap()), Some((Reach::Special, word)), "{address}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1", "2001:4860::1", "::ffff:8.8.8.8"] {
            assert_eq!(classify(public.parse().unwrap()), None, "{public}");
        }
    }
}
