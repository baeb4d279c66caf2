//! What the collector needs to know, resolved.

use crate::config::{CollectorSection, HostPort};
use crate::net::{Limits, Token};

/// Settings of one collector.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub listen: HostPort,
    /// What senders must show; `None` = everybody may send.
    pub token: Option<Token>,
    /// Bounds of the listener.
    pub limits: Limits,
}

impl Config {
    /// From the section of the configuration.
    #[must_use]
    pub fn resolve(section: &CollectorSection) -> Self {
        let token = section.secret_token.as_ref().and_then(|secret| Token::new(secret.reveal()));
        Self { listen: section.host.clone(), token, limits: Limits::default() }
    }

    /// Whether anybody on the network may send. The caller says so loudly.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.token.is_none() && !self.listen.is_loopback()
    }
}
