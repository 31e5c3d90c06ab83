//! Internet addresses, as they travel.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use serde::{Deserialize, Serialize};

/// Where somebody is on the internet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Address {
    /// IPv4 or IPv6 in network order.
    pub ip: Ip,
    /// TCP or UDP port.
    pub port: u16,
}

/// Bytes of an IP address, in network order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ip {
    /// IPv4.
    V4([u8; 4]),
    /// IPv6.
    V6([u8; 16]),
}

impl From<SocketAddr> for Address {
    /// An IPv4 address inside IPv6 is told as the IPv4 address that it is.
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(ip) => Ip::V4(ip.octets()),
            IpAddr::V6(ip) => Ip::V6(ip.octets()),
        };
        Self { ip, port: address.port() }
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> Self {
        let ip = match address.ip {
            Ip::V4(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
            Ip::V6(octets) => IpAddr::V6(Ipv6Addr::from(octets)),
        };
        Self::new(ip, address.port)
    }
}
