//! Ranges of addresses: `10.42.0.0/16`, `fd00::/8`, or one address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    address: IpAddr,
    bits: u32,
}

/// Not a range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is neither an address nor a range such as 10.0.0.0/8")]
pub struct RangeError;

impl AddressRange {
    /// IPv4 within IPv6 is IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same_bits(own.to_bits().into(), other.to_bits().into(), u32::BITS - self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => same_bits(own.to_bits(), other.to_bits(), u128::BITS - self.bits),
            _ => false,
        }
    }
}

/// Whether they differ in the last `free` bits only.
fn same_bits(one: u128, other: u128, free: u32) -> bool {
    (one ^ other).checked_shr(free).unwrap_or(0) == 0
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| RangeError)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| RangeError)?;
        let bits_max = if address.is_ipv4() { u32::BITS } else { u128::BITS };
        let bits = bits.unwrap_or(bits_max);
        if bits > bits_max { Err(RangeError) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn an_address_is_in_its_range_whichever_way_it_is_written() {
        for (range, address, inside) in [
            ("10.42.0.0/16", "10.42.255.1", true),
            ("10.42.0.0/16", "10.43.0.1", false),
            ("10.42.0.0/16", "::ffff:10.42.0.1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::/0", "2001:db8::1", true),
        ] {
            let range: AddressRange = range.parse().unwrap();
            assert_eq!(range.contains(address.parse().unwrap()), inside, "{range} {address}");
        }
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/x", "host"] {
            assert_eq!(wrong.parse::<AddressRange>(), Err(RangeError), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_range_holds_what_shares_its_bits_and_nothing_else(own: u32, other: u32, bits in 0u32..=32) {
            let range: AddressRange = format!("{}/{bits}", Ipv4Addr::from_bits(own)).parse().unwrap();
            let shared = (0..bits).all(|bit| (own ^ other) & (1 << (31 - bit)) == 0);
            prop_assert_eq!(range.contains(Ipv4Addr::from_bits(other).into()), shared);
        }

        #[test]
        fn so_do_ranges_of_ipv6(own: u128, other: u128, bits in 0u32..=128) {
            let range: AddressRange = format!("{}/{bits}", Ipv6Addr::from_bits(own)).parse().unwrap();
            let other = IpAddr::from(Ipv6Addr::from_bits(other));
            prop_assume!(other.to_canonical().is_ipv6());
            let IpAddr::V6(bits_of_other) = other else { unreachable!() };
            let shared = (0..bits).all(|bit| (own ^ bits_of_other.to_bits()) & (1 << (127 - bit)) == 0);
            prop_assert_eq!(range.contains(other), shared);
        }
    }
}
