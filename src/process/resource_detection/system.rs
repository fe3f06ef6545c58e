//! The `system` detector: the machine, or the container that is taken for one.

use super::settings::{HostNameSource, SystemSettings};

/// # Errors
/// No source knows the host's name.
pub fn detect(settings: &SystemSettings) -> Result<Vec<(String, String)>, String> {
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .map_err(|error| format!("the kernel does not tell the host's name: {error}"))?;
    let mut found = Vec::new();
    let mut add = |wanted: bool, key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|_| wanted) {
            found.push((key.to_owned(), value));
        }
    };
    let name = settings.host_name_sources.iter().find_map(|source| match source {
        HostNameSource::Os => Some(host_name.clone()),
        HostNameSource::Dns => {
            let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            full_name(&hosts, &host_name)
        }
    });
    let name = name.ok_or("/etc/hosts has no full name for this host; add os to hostname_sources")?;
    add(settings.host_name, "host.name", Some(name));
    let machine_id = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .find_map(|file| Some(std::fs::read_to_string(file).ok()?.trim().to_owned()));
    add(settings.host_id, "host.id", machine_id);
    add(settings.host_arch, "host.arch", Some(arch(std::env::consts::ARCH).to_owned()));
    add(settings.os_type, "os.type", Some(std::env::consts::OS.to_owned()));
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    add(settings.os_name, "os.name", release_field(&release, "NAME"));
    add(settings.os_version, "os.version", release_field(&release, "VERSION_ID"));
    add(settings.os_build_id, "os.build.id", release_field(&release, "BUILD_ID"));
    Ok(found)
}

/// The first name with a dot in the line that names this host.
fn full_name(hosts: &str, host_name: &str) -> Option<String> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>())
        .filter(|names| names.contains(&host_name))
        .find_map(|names| names.into_iter().find(|name| name.contains('.')).map(str::to_owned))
}

/// The names that OpenTelemetry has for architectures.
fn arch(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        other => other,
    }
}

fn release_field(release: &str, name: &str) -> Option<String> {
    let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_name_comes_from_the_hosts_file() {
        let hosts = "127.0.0.1 localhost\n10.0.0.7 pod.sub.shop.svc.cluster.local pod # this one\n";
        assert_eq!(full_name(hosts, "pod").as_deref(), Some("pod.sub.shop.svc.cluster.local"));
        assert_eq!(full_name(hosts, "other"), None);
        assert_eq!(full_name("10.0.0.7 pod\n", "pod"), None);
    }

    #[test]
    fn fields_of_the_release_are_read_without_their_quotes() {
        let release = "PRETTY_NAME=\"Debian GNU/Linux 13\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\n";
        assert_eq!(release_field(release, "NAME").as_deref(), Some("Debian GNU/Linux"));
        assert_eq!(release_field(release, "VERSION_ID").as_deref(), Some("13"));
        assert_eq!(release_field(release, "BUILD_ID"), None);
    }
}
