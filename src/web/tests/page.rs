//! The embedded page: every file it names is served, and nothing in it needs what the content policy forbids.

use super::*;

async fn file(uri: &str) -> (StatusCode, HeaderMap, String) {
    let (status, headers, bytes) = body(send(parts(MemoryReader::scene()), request(uri)).await).await;
    (status, headers, String::from_utf8_lossy(&bytes).into_owned())
}

/// Values between `before` and the next quote.
fn quoted<'t>(text: &'t str, before: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
}

/// `file` as named by a script in `folder`.
fn join(folder: &str, file: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[tokio::test]
async fn pages_have_addresses_of_their_own() {
    let (_, _, index) = file("/").await;
    for page in ["/flamegraph", "/functions?from=now-1h", "/stacktraces", "/add-data"] {
        let (status, headers, text) = file(page).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8", "{page}");
        assert_eq!(text, index, "{page}");
    }
    let (status, headers, _) = file("/flamegraph/?a=b").await;
    assert_eq!(
        (status, &headers[header::LOCATION]),
        (StatusCode::PERMANENT_REDIRECT, &"/flamegraph?a=b".parse().unwrap())
    );
    for none in ["/no.js", "/a/b", "/../Cargo.toml", "/%2e%2e/Cargo.toml", "/flamegraph/x"] {
        assert_eq!(file(none).await.0, StatusCode::NOT_FOUND, "{none}");
    }
}

#[tokio::test]
async fn every_file_of_the_page_is_served_with_its_type() {
    let (_, _, index) = file("/").await;
    assert!(!index.contains(" style=") && !index.contains("<style") && !index.contains(" on"), "inline code");
    assert!(
        index.matches("<script").count()
            == index.matches("<script src").count() + index.matches("type=\"module\" src").count()
    );
    let mut open: Vec<String> = quoted(&index, "src=\"").map(|name| join("", name)).collect();
    for sheet in quoted(&index, "rel=\"stylesheet\" href=\"") {
        let (status, headers, _) = file(&join("", sheet)).await;
        assert_eq!(status, StatusCode::OK, "{sheet}");
        assert_eq!(headers[header::CONTENT_TYPE], "text/css; charset=utf-8", "{sheet}");
    }
    let mut seen = std::collections::HashSet::new();
    while let Some(script) = open.pop() {
        if !seen.insert(script.clone()) {
            continue;
        }
        let (status, headers, text) = file(&script).await;
        assert_eq!(status, StatusCode::OK, "{script}");
        assert_eq!(headers[header::CONTENT_TYPE], "text/javascript; charset=utf-8", "{script}");
        assert!(headers.contains_key(header::ETAG), "{script}");
        let folder = script.rsplit_once('/').unwrap().0;
        let imports = text.lines().filter(|line| line.starts_with("import ") || line.starts_with("} from "));
        for line in imports {
            open.extend(
                quoted(line, "\"").filter(|name| name.starts_with('.')).map(|name| join(folder, name)),
            );
        }
    }
    assert!(seen.len() > 1, "the page's scripts import each other");
}
