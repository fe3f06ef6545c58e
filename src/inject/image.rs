//! The version that an image reference carries.

/// `tag`, `tag@digest` or `digest`; `None` where there is neither, or the text is no image reference.
pub(super) fn version(image: &str) -> Option<String> {
    let (named, digest) = match image.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let path_start = named.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match named.get(path_start..)?.split_once(':') {
        Some((last, tag)) => (named.get(..path_start + last.len())?, Some(tag)),
        None => (named, None),
    };
    let valid = is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
    match (tag, digest) {
        _ if !valid => None,
        (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
        (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
        (None, None) => None,
    }
}

fn is_name(name: &str) -> bool {
    // Only the first of several components may be a host, which may have capitals and a port.
    let path = name.split_once('/').map_or(name, |(_, path)| path);
    let component = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    path.split('/').all(component)
}

fn is_tag(tag: &str) -> bool {
    const TAG_LENGTH_MAX: usize = 128;
    (1..=TAG_LENGTH_MAX).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn is_digest(digest: &str) -> bool {
    const HEX_LENGTH_MIN: usize = 32;
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
            && hex.len() >= HEX_LENGTH_MIN
            && hex.chars().all(|c| c.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_images() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (image, expected) in [
            ("app:1.2", Some("1.2".to_owned())),
            ("registry.example:5000/team/app:1.2", Some("1.2".to_owned())),
            ("registry.example:5000/team/app", None),
            ("app", None),
            ("", None),
            ("App:1.2", None),
            ("Host/app:1.2", Some("1.2".to_owned())),
            ("app:", None),
            (&format!("app@{digest}"), Some(digest.clone())),
            (&format!("app:v1@{digest}"), Some(format!("v1@{digest}"))),
            ("app@sha256:12", None),
        ] {
            assert_eq!(version(image), expected, "{image}");
        }
    }
}
