//! The configuration file as the user typed it: every field optional, unknown ones refused. Checked by `config`.

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};
use serde_saphyr::Spanned;
use std::fmt;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RawConfig {
    pub(crate) version: Option<At<Scalar>>,
    pub(crate) apex: Option<At<String>>,
    pub(crate) ca_file: Option<At<String>>,
    pub(crate) pinned_key: Option<At<String>>,
    pub(crate) certificate: Option<At<String>>,
    pub(crate) priv_key: Option<At<Secret>>,
    pub(crate) tunnels: Option<Vec<RawTunnel>>,
}

/// One entry of `tunnels`. The aliases are names that older files of the original use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RawTunnel {
    pub(crate) target: Option<At<String>>,
    pub(crate) hostname: Option<At<String>>,
    pub(crate) insecure: Option<At<Scalar>>,
    #[serde(alias = "proxyHeaderTimeout")]
    pub(crate) header_timeout: Option<At<Scalar>>,
    #[serde(alias = "proxyHeaderMode")]
    pub(crate) header_mode: Option<At<String>>,
    #[serde(alias = "proxyHeaderHost")]
    pub(crate) header_host: Option<At<String>>,
}

/// A value and the line it stands on. Two are equal when their values are.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) line: u64,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::deserialize(deserializer)?;
        Ok(Self { value: spanned.value, line: spanned.referenced.line() })
    }
}

/// A text that must not appear in logs.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A text, a number or a truth value as its text, so that the check that follows can tell what it holds: `15s` and `15`
/// are both durations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalar(pub(crate) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;

        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a single value")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Scalar, E> {
                Ok(Scalar(truth.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
        }

        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// Why a text is no configuration, and on which line if that is known.
#[derive(Debug)]
pub(crate) struct ParseError {
    pub(crate) line: u64,
    pub(crate) message: String,
}

/// Parses the text of a file. Messages never quote the text, which may hold the private key.
pub(crate) fn parse(text: &str) -> Result<RawConfig, ParseError> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let message = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
        // The location is told in our own words; the parser repeats it at the end of its sentence.
        let message = message.lines().next().unwrap_or_default();
        let message = message.split(" at line ").next().unwrap_or_default();
        ParseError { line, message: format!("{}{message}", subject(text, line)) }
    })
}

/// The key on a line, to begin a message with. Never a value.
fn subject(text: &str, line: u64) -> String {
    let index = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
    let line = text.lines().nth(index).unwrap_or_default();
    let key = line.trim_start_matches([' ', '-', '{']).split(':').next().unwrap_or_default();
    if !key.is_empty() && key.len() < line.len() && key.bytes().all(|b| b.is_ascii_alphabetic()) {
        format!("`{key}`: ")
    } else {
        String::new()
    }
}
