//! The user of a URL, `https://user:password@host`: it is sent, and shown to nobody.

/// The user with the password, if there is one, and the URL without; also of an authority that lacks the scheme.
#[must_use]
pub fn split_user(url: &str) -> (Option<&str>, String) {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, url),
    };
    let authority_len = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_len);
    match authority.rsplit_once('@') {
        None => (None, url.to_owned()),
        Some((user, host)) => {
            let scheme = scheme.map(|scheme| format!("{scheme}://")).unwrap_or_default();
            (Some(user), format!("{scheme}{host}{path}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split_user;

    #[test]
    fn the_user_is_what_stands_before_the_host() {
        for (url, user, rest) in [
            ("https://me:secret@tempo:4318/v1?a=@b", Some("me:secret"), "https://tempo:4318/v1?a=@b"),
            ("http://a@b@tempo", Some("a@b"), "http://tempo"),
            ("me:secret@tempo:4318", Some("me:secret"), "tempo:4318"),
            ("http://tempo/@", None, "http://tempo/@"),
            ("tempo:4317", None, "tempo:4317"),
        ] {
            assert_eq!(split_user(url), (user, rest.to_owned()), "{url}");
        }
    }
}
