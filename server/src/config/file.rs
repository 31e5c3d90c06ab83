//! The configuration file, TOML.

use std::{fs, ops::Range, path::Path};

use serde::Deserialize;
use toml::Spanned;

use super::{CertificateLayer, ConfigError, Layer, Origin, Stated};

impl Layer {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] or [`ConfigError::Syntax`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Parses a file's text; `path` is for messages and relative paths.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = line_of(text, error.span().unwrap_or_default());
            ConfigError::Syntax {
                path: path.to_owned(),
                line,
                text: text.lines().nth(line - 1).unwrap_or_default().trim().to_owned(),
                message: error.message().to_owned(),
            }
        })?;
        let stated = |key: &'static str, value: Spanned<String>| {
            let line = line_of(text, value.span());
            Stated { text: value.into_inner(), origin: Origin::File { path: path.to_owned(), line, key } }
        };
        let one = |key, value: Option<Spanned<String>>| value.map(|value| stated(key, value));
        let many = |key, values: Option<Vec<Spanned<String>>>| {
            values.map(|values| values.into_iter().map(|value| stated(key, value)).collect::<Vec<_>>())
        };
        let number =
            |key, value: Option<Spanned<i64>>| one(key, value.map(|n| Spanned::new(n.span(), n.get_ref().to_string())));
        let switch = |key, value: Option<Spanned<bool>>| {
            one(key, value.map(|b| Spanned::new(b.span(), b.get_ref().to_string())))
        };
        let certificate = |files: CertificateFile| CertificateLayer {
            cert: stated("cert", files.cert),
            key: stated("key", files.key),
        };
        Ok(Self {
            advertise: one("advertise", file.advertise),
            listen: many("listen", file.listen),
            listen_tcp: many("listen_tcp", file.listen_tcp),
            listen_udp: many("listen_udp", file.listen_udp),
            listen_http: many("listen_http", file.listen_http),
            join: many("join", file.join),
            data_dir: one("data_dir", file.data_dir),
            sync: one("sync", file.sync),
            cert_dir: one("cert_dir", file.cert_dir),
            cert_env: None,
            apex: many("apex", file.apex),
            certificates: file.certificate.into_iter().map(certificate).collect(),
            log: one("log", file.log),
            log_json: switch("log_json", file.log_json),
            work_bits: number("work_bits", file.work_bits),
            drain: number("drain", file.drain),
            workers: number("workers", file.workers),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    advertise: Option<Spanned<String>>,
    listen: Option<Vec<Spanned<String>>>,
    listen_tcp: Option<Vec<Spanned<String>>>,
    listen_udp: Option<Vec<Spanned<String>>>,
    listen_http: Option<Vec<Spanned<String>>>,
    join: Option<Vec<Spanned<String>>>,
    data_dir: Option<Spanned<String>>,
    sync: Option<Spanned<String>>,
    cert_dir: Option<Spanned<String>>,
    apex: Option<Vec<Spanned<String>>>,
    log: Option<Spanned<String>>,
    log_json: Option<Spanned<bool>>,
    work_bits: Option<Spanned<i64>>,
    drain: Option<Spanned<i64>>,
    workers: Option<Spanned<i64>>,
    #[serde(default)]
    certificate: Vec<CertificateFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateFile {
    cert: Spanned<String>,
    key: Spanned<String>,
}

fn line_of(text: &str, span: Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
}
