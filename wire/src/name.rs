//! Hostnames and HTTP authorities: parsed once at the edge, trusted afterwards.

use crate::limits::{AUTHORITY_BYTES, HOSTNAME_BYTES};
use core::{borrow::Borrow, fmt};

/// A DNS name in lower case without the root dot: labels of 1 to 63 letters, digits and inner hyphens.
///
/// A tunnel under the apex is known by its first label alone (`overnight-graph-caboose-list-boney`), a custom domain by
/// its full name. A name never holds an IP address with dots only of digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(heapless::String<HOSTNAME_BYTES>);

/// Why a text is no hostname.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameError {
    /// Nothing, or only a dot.
    Empty,
    /// More than [`HOSTNAME_BYTES`], or a label of more than 63.
    TooLong,
    /// A label is empty, starts or ends with a hyphen, or holds another character.
    Character,
    /// An IPv4 address, which no certificate or route is made for.
    Address,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the hostname is empty",
            Self::TooLong => "the hostname has more than 253 characters, or a part of more than 63",
            Self::Character => "a hostname has only letters, digits, inner hyphens and single dots",
            Self::Address => "an IP address stands where a hostname is needed",
        })
    }
}

impl core::error::Error for NameError {}

impl Hostname {
    /// Parses a name, folding upper case and dropping one trailing dot.
    ///
    /// # Errors
    /// [`NameError`] tells what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let mut name = heapless::String::new();
        let mut numeric = true;
        for (index, label) in text.split('.').enumerate() {
            check_label(label)?;
            numeric &= label.bytes().all(|b| b.is_ascii_digit());
            if index > 0 {
                name.push('.').map_err(|_| NameError::TooLong)?;
            }
            for character in label.chars() {
                name.push(character.to_ascii_lowercase()).map_err(|_| NameError::TooLong)?;
            }
        }
        if numeric {
            return Err(NameError::Address);
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name has a single label, as tunnels under the apex have.
    pub fn is_label(&self) -> bool {
        !self.0.contains('.')
    }

    /// The part under `apex` if exactly one label stands before it.
    pub fn label_under(&self, apex: &Self) -> Option<Self> {
        let label = self.0.strip_suffix(apex.as_str())?.strip_suffix('.')?;
        if label.contains('.') {
            return None;
        }
        Self::parse(label).ok()
    }

    /// Whether the name is `apex` or lies below it, at any depth.
    pub fn is_within(&self, apex: &Self) -> bool {
        match self.0.strip_suffix(apex.as_str()) {
            Some(head) => head.is_empty() || head.ends_with('.'),
            None => false,
        }
    }
}

fn check_label(label: &str) -> Result<(), NameError> {
    let bytes = label.as_bytes();
    match bytes {
        [] => return Err(NameError::Character),
        [b'-', ..] | [.., b'-'] => return Err(NameError::Character),
        _ => {}
    }
    if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
        return Err(NameError::Character);
    }
    if bytes.len() > 63 { Err(NameError::TooLong) } else { Ok(()) }
}

impl Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether `text` may stand in a `Host` header: 1 to [`AUTHORITY_BYTES`] letters, digits, `-._:[]`.
///
/// Narrower than RFC 9110 §7.2 on purpose: what a tunnel asks the gateway to send must never end a header line.
pub fn is_authority(text: &str) -> bool {
    (1..=AUTHORITY_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::String;

    fn name(text: &str) -> Hostname {
        Hostname::parse(text).expect(text)
    }

    #[test]
    fn names_are_folded_and_lose_the_root_dot() {
        assert_eq!(name("Overnight-Graph.Example.COM.").as_str(), "overnight-graph.example.com");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (text, error) in [
            ("", NameError::Empty),
            (".", NameError::Empty),
            ("a..b", NameError::Character),
            ("a.b..", NameError::Character),
            ("-a", NameError::Character),
            ("a-", NameError::Character),
            ("a_b", NameError::Character),
            ("a b", NameError::Character),
            ("a\0b", NameError::Character),
            ("../etc", NameError::Character),
            ("ü", NameError::Character),
            ("127.0.0.1", NameError::Address),
            ("2130706433", NameError::Address),
        ] {
            assert_eq!(Hostname::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Hostname::parse(&"a".repeat(64)), Err(NameError::TooLong));
        let long: String = ["a".repeat(63).as_str(); 4].join(".");
        assert_eq!(Hostname::parse(&long), Err(NameError::TooLong));
        assert!(Hostname::parse(&long[2..]).is_ok());
    }

    #[test]
    fn apexes_match_on_whole_labels_only() {
        let apex = name("specter.im");
        assert_eq!(name("a.specter.im").label_under(&apex), Some(name("a")));
        assert_eq!(name("a.b.specter.im").label_under(&apex), None);
        assert_eq!(name("specter.im").label_under(&apex), None);
        assert_eq!(name("evil-specter.im").label_under(&apex), None);
        assert!(name("a.b.specter.im").is_within(&apex));
        assert!(name("specter.im").is_within(&apex));
        assert!(!name("evil-specter.im").is_within(&apex));
        assert!(!name("specter.im.evil.com").is_within(&apex));
    }

    #[test]
    fn an_authority_never_ends_a_header_line() {
        assert!(is_authority("127.0.0.1:5173"));
        assert!(is_authority("[::1]:80"));
        for text in ["", "a\r\nb", "a b", "a/b", "user@host", "é"] {
            assert!(!is_authority(text), "{text:?}");
        }
    }
}
