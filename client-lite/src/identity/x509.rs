//! The two fields of an X.509 certificate that the client needs: its validity and its public key (RFC 5280 §4.1).
//!
//! Signatures are rustls' business; nothing is trusted because it was read here. A full parser would weigh more than
//! the rest of the identity.

use super::Validity;
use crate::clock::days_since_1970;

/// Fields of one certificate.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) validity: Validity,
    /// `SubjectPublicKeyInfo` with its header: what a pinned key is the digest of.
    pub(crate) public_key_info: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads a certificate in DER; None if it is none.
    pub(crate) fn parse(der: &'a [u8]) -> Option<Self> {
        let certificate = Element::read(der)?.expect(SEQUENCE)?.content;
        let mut rest = Element::read(certificate)?.expect(SEQUENCE)?.content;
        let first = take(&mut rest)?;
        if first.tag == EXPLICIT_VERSION {
            take(&mut rest)?.expect(INTEGER)?;
        }
        // Signature algorithm and issuer.
        take(&mut rest)?.expect(SEQUENCE)?;
        take(&mut rest)?.expect(SEQUENCE)?;
        let mut dates = take(&mut rest)?.expect(SEQUENCE)?.content;
        let not_before_unix_s = take(&mut dates)?.unix_s()?;
        let not_after_unix_s = take(&mut dates)?.unix_s()?;
        // Subject.
        take(&mut rest)?.expect(SEQUENCE)?;
        let public_key_info = take(&mut rest)?.expect(SEQUENCE)?.whole;
        Some(Self { validity: Validity { not_before_unix_s, not_after_unix_s }, public_key_info })
    }
}

/// One DER element.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    /// Header and content.
    whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads the element at the front.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (tag, length_byte) = (*bytes.first()?, *bytes.get(1)?);
        let (header, length) = if length_byte < 0x80 {
            (2, usize::from(length_byte))
        } else {
            let count = usize::from(length_byte & 0x7f);
            let digits = bytes.get(2..2 + count).filter(|digits| (1..=3).contains(&digits.len()))?;
            (2 + count, digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)))
        };
        let whole = bytes.get(..header + length)?;
        Some(Self { tag, content: &whole[header..], whole })
    }

    fn expect(self, tag: u8) -> Option<Self> {
        (self.tag == tag).then_some(self)
    }

    /// Reads a time; both forms end in `Z` and have seconds (RFC 5280 §4.1.2.5).
    fn unix_s(&self) -> Option<u64> {
        let text = std::str::from_utf8(self.content).ok()?.strip_suffix('Z')?;
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let (year, rest) = match (self.tag, text.len()) {
            (UTC_TIME, 12) => {
                let year: u64 = text[..2].parse().ok()?;
                (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
            }
            (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
            (_, _) => return None,
        };
        let field = |index: usize| rest[2 * index..2 * index + 2].parse::<u64>().ok();
        let days = days_since_1970(year, field(0)?, field(1)?)?;
        Some(days * 86_400 + field(2)? * 3600 + field(3)? * 60 + field(4)?)
    }
}

/// Takes the element at the front off.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<Element<'a>> {
    let element = Element::read(bytes)?;
    *bytes = &bytes[element.whole.len()..];
    Some(element)
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_of_a_certificate_parses_or_panics() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).expect("certificate");
        let der = made.cert.der();
        let fields = Fields::parse(der).expect("fields");
        assert!(fields.validity.not_before_unix_s < fields.validity.not_after_unix_s);
        for length in 0..fields.public_key_info.len() {
            assert!(Fields::parse(&der[..length]).is_none());
        }
    }
}
