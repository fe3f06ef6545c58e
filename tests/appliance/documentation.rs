//! What the documentation points at is there: files, headings, subcommands, targets of make.

use std::path::{Path, PathBuf};

use crate::support::spanreel::binary;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Each page with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].iter().map(|name| root().join(name)).collect();
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    paths.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    let pages: Vec<_> = paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    assert!(pages.len() > 10, "the pages have moved");
    pages
}

/// The text outside of code blocks, and that within.
fn prose_and_code(page: &str) -> (String, String) {
    let (mut prose, mut code) = (String::new(), String::new());
    for (index, part) in page.split("```").enumerate() {
        if index % 2 == 0 { prose.push_str(part) } else { code.push_str(part) }
    }
    (prose, code)
}

/// As a heading is named in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_or_a_heading() {
    let mut links = 0;
    for (path, page) in pages() {
        let (prose, _) = prose_and_code(&page);
        for target in prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: {target}", path.display());
            if !heading.is_empty() {
                let linked = std::fs::read_to_string(&file).unwrap();
                let mut headings = linked.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
                assert!(found, "{}: {target}", path.display());
            }
        }
    }
    assert!(links > 20, "{links} links");
}

#[test]
fn every_command_that_is_shown_exists() {
    let help = String::from_utf8(binary().arg("--help").output().unwrap().stdout).unwrap();
    let subcommands: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let mut commands = 0;
    for (path, page) in pages() {
        let (prose, code) = prose_and_code(&page);
        let indented = prose.lines().filter(|line| line.starts_with("    "));
        let spans = prose.split('`').skip(1).step_by(2).chain(code.lines()).chain(indented);
        for words in spans.map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            match words.as_slice() {
                ["spanreel", subcommand, ..] if subcommand.starts_with(|first: char| first.is_ascii_lowercase()) => {
                    commands += 1;
                    assert!(subcommands.contains(subcommand), "{}: {}", path.display(), words.join(" "));
                }
                ["make", target] => {
                    commands += 1;
                    let rule = format!("\n{target}:");
                    assert!(makefile.contains(&rule), "{}: {}", path.display(), words.join(" "));
                }
                _ => {}
            }
        }
    }
    assert!(commands > 20, "{commands} commands");
}
