//! Who may call: API keys, the names a browser may know us by, and where we may listen.
//!
//! Owns: every check that is made before a request's body is read.
//! Must not: keep a key in clear text, or log one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, header};

/// Separates this use of BLAKE3 from every other.
const KEY_CONTEXT: &str = "cocoon-gateway api key v1";

/// An API key, known by its hash only.
#[derive(Clone)]
pub struct ApiKey(blake3::Hash);

impl ApiKey {
    /// From the text that clients send.
    pub fn from_secret(secret: &str) -> Self {
        // Keys are long random strings, so a fast hash is enough: there is nothing to guess.
        Self(blake3::Hash::from_bytes(blake3::derive_key(KEY_CONTEXT, secret.as_bytes())))
    }

    /// From a hash that was stored.
    pub const fn from_hash(hash: [u8; 32]) -> Self {
        Self(blake3::Hash::from_bytes(hash))
    }

    /// The hash to store.
    pub const fn as_hash(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl PartialEq for ApiKey {
    /// In constant time, as `blake3::Hash` promises.
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for ApiKey {}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// Why the gateway does not listen at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} can be reached from other machines, and without an API key anyone there could spend your \
     money: set an API key, or listen at 127.0.0.1"
)]
pub struct BindError(SocketAddr);

/// Refuses to listen beyond loopback without an API key.
pub fn check_bind(address: SocketAddr, has_key: bool) -> Result<(), BindError> {
    if has_key || address.ip().to_canonical().is_loopback() {
        Ok(())
    } else {
        Err(BindError(address))
    }
}

/// Whether the request carries one of `keys`. With no keys, everyone may call.
pub(crate) fn is_authorised(headers: &HeaderMap, keys: &[ApiKey]) -> bool {
    if keys.is_empty() {
        return true;
    }
    let Some(presented) = bearer(headers).map(ApiKey::from_secret) else {
        return false;
    };
    // No early end: the time must not say which key matched.
    keys.iter().fold(false, |found, key| found | (*key == presented))
}

/// The hash of the key that the request carries, if it is one of `keys`.
pub(crate) fn caller(headers: &HeaderMap, keys: &[ApiKey]) -> Option<[u8; 32]> {
    let presented = bearer(headers).map(ApiKey::from_secret)?;
    keys.iter().filter(|key| **key == presented).map(|key| *key.as_hash()).next_back()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Whether the `Host` header names this machine in a way that no stranger's DNS could have made.
///
/// Without a key, a web page could point its own name at 127.0.0.1 after it was loaded (DNS
/// rebinding) and spend the user's money from the browser. An address or `localhost` cannot be
/// rebound; other names must be allowed by the operator. Clients that are no browsers may leave
/// the header out in HTTP/1.0.
pub(crate) fn is_own_host(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        return true;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = without_port(host);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(host, |(address, _)| address);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn beyond_loopback_needs_a_key() {
        for own in ["127.0.0.1:80", "127.9.9.9:0", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(check_bind(own.parse().unwrap(), false), Ok(()), "{own}");
        }
        for open in ["0.0.0.0:80", "[::]:80", "192.168.1.2:80", "[::ffff:10.0.0.1]:80"] {
            let address = open.parse().unwrap();
            assert_eq!(check_bind(address, false), Err(BindError(address)), "{open}");
            assert_eq!(check_bind(address, true), Ok(()), "{open}");
        }
    }

    #[test]
    fn one_of_the_keys_must_be_presented_in_full() {
        let keys = [ApiKey::from_secret("first"), ApiKey::from_secret("second")];
        let with = |value| is_authorised(&headers(header::AUTHORIZATION, value), &keys);
        let own = caller(&headers(header::AUTHORIZATION, "Bearer second"), &keys);
        assert_eq!(own.map(ApiKey::from_hash), Some(ApiKey::from_secret("second")));
        assert_eq!(caller(&headers(header::AUTHORIZATION, "Bearer third"), &keys), None);
        assert!(with("Bearer first") && with("bearer second"));
        for wrong in ["Bearer firs", "Bearer firstt", "Bearer", "first", "Basic first", "Bearer "] {
            assert!(!with(wrong), "{wrong}");
        }
        assert!(!is_authorised(&HeaderMap::new(), &keys));
        assert!(is_authorised(&HeaderMap::new(), &[]));
    }

    #[test]
    fn a_key_survives_storage_and_is_never_shown() {
        let key = ApiKey::from_secret("sk-secret");
        assert_eq!(ApiKey::from_hash(*key.as_hash()), key);
        assert!(!format!("{key:?}").contains("sk-"));
    }

    #[test]
    fn only_names_that_cannot_be_rebound_are_ours() {
        let own = |value| is_own_host(&headers(header::HOST, value), &["gateway.lan".to_owned()]);
        for ours in
            ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:80", "[::1]", "gateway.lan:1"]
        {
            assert!(own(ours), "{ours}");
        }
        for strange in
            ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", "", "["]
        {
            assert!(!own(strange), "{strange}");
        }
        assert!(is_own_host(&HeaderMap::new(), &[]));
    }
}
