//! Where a webhook may not go: this machine, its network, and whatever else is not on the public internet.
//!
//! A name is resolved here, and the connection is made to the addresses that were checked, so that a name that changes
//! its address in between gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Lets only public addresses through, unless it is told otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    pub(super) private_addresses: bool,
}

impl Guard {
    fn allows(self, address: IpAddr) -> bool {
        self.private_addresses || is_public(address)
    }

    /// A URL that may be called, as far as that can be said before its name is resolved.
    pub(super) fn checked(self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|error| format!("the URL cannot be read: {error}"))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err("the URL is neither https nor http".to_owned());
        }
        // A literal address is not resolved. The parser has already brought forms such as 0x7f.1 to the usual one.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(address) if !self.allows(address) => Err(refusal(address)),
            _ => Ok(url),
        }
    }
}

fn refusal(address: IpAddr) -> String {
    format!("{address} is not on the public internet")
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = *self;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if let Some(refused) = found.iter().find(|address| !guard.allows(address.ip())) {
                return Err(format!("{}: {}", name.as_str(), refusal(refused.ip())).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is on the public internet (RFC 6890 and its successors).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        // Carriers' own networks, protocol assignments, benchmarks, and the relay of 6to4.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 192 && b == 88 && c == 99))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = embedded(address) {
        return is_public_v4(v4);
    }
    let [first, second, ..] = address.segments();
    // Only 2000::/3 is handed out at all; of that not Teredo and other protocols (2001::/23), documentation, and 6to4.
    (first & 0xe000) == 0x2000
        && !(first == 0x2001 && second < 0x0200)
        && !(first == 0x2001 && second == 0x0db8)
        && first != 0x2002
        && !(first == 0x3fff && second < 0x1000)
}

/// The IPv4 address that an IPv6 one stands for: mapped, or behind a translator (`64:ff9b::/96`).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let translated = address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let [.., a, b, c, d] = address.octets();
    address.to_ipv4_mapped().or(translated.then_some(Ipv4Addr::new(a, b, c, d)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARD: Guard = Guard { private_addresses: false };

    #[test]
    fn literals_that_lead_inside_are_refused_in_every_spelling() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a00:1]",
            "[fe80::1]",
            "[fc00::1]",
            "[fd12:3456::1]",
            "[ff02::1]",
            "[64:ff9b::7f00:1]",
            "[2001:db8::1]",
            "[2002:7f00:1::]",
            "[2001::1]",
            "[::127.0.0.1]",
            "[100::1]",
        ] {
            assert!(GUARD.checked(&format!("http://{host}/hook")).is_err(), "{host}");
        }
    }

    #[test]
    fn public_literals_and_names_pass_until_they_are_resolved() {
        for host in ["93.184.215.14", "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]", "example.org", "[64:ff9b::808:808]"] {
            assert!(GUARD.checked(&format!("https://{host}/hook")).is_ok(), "{host}");
        }
        assert!(GUARD.checked("file:///etc/passwd").is_err());
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_when_it_is_resolved() {
        let refused = GUARD.resolve("localhost".parse().unwrap()).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("public internet")));
    }
}
