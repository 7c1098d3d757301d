//! The page about a build, as a browser sees it.

use std::path::{Path, PathBuf};
use std::process::Command;

use osbc_fixtures::{has_root, has_tool};
use predicates::str::contains;
use serde_json::json;

use crate::harness::{Place, osbc};

/// What a page must show as text and never become a part of.
const HOSTILE: &str = "<b id=\"injected\">bold";

/// Runs a build that fails in its last stage, and writes the page about it.
fn report(place: &Place) -> PathBuf {
    let mkdir = |path: &str| json!({"type": "org.osbuild.mkdir", "options": {"paths": [{"path": path}]}});
    let manifest = place.manifest(&json!({"version": "2", "pipelines": [
        {"name": HOSTILE, "stages": [mkdir("/etc"), mkdir("/usr"), mkdir(&format!("/not/{HOSTILE}"))]},
        {"name": "other", "stages": [mkdir("/etc"), mkdir("/srv")]},
    ]}));
    place.build(&manifest).args(["--keep-going", "-j", "2"]).assert().code(1);
    let page = place.path("report.html");
    let mut command = osbc();
    command.arg("report").arg("last").arg("-o").arg(&page).arg("--store").arg(place.store());
    command.assert().success().stderr(contains("report.html"));
    page
}

/// The document after its script has run, in a window as wide as a phone can be here.
fn document(place: &Place, page: &Path, more: &[&str]) -> String {
    let profile = place.path("profile");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--window-size=500,900", "--dump-dom"])
        .args(more)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium starts");
    std::fs::remove_dir_all(&profile).ok();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("</html>"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn root_a_browser_shows_the_report() {
    if !has_root() || !has_tool("chromium") {
        return;
    }
    let place = Place::new();
    let page = report(&place);
    // Says what only a browser knows.
    let script = r##"<script>{
        const styles = getComputedStyle(document.body), lanes = document.querySelectorAll(".lane:not(.axis)");
        const bars = [...document.querySelectorAll(".bar")], rows = [...document.querySelectorAll("#stages tbody")];
        document.title = JSON.stringify({
            fits: document.documentElement.scrollWidth <= innerWidth, ground: styles.backgroundColor,
            lanes: lanes.length, bars: bars.length, failed: document.querySelectorAll(".bar-failed").length,
            led: bars.every(bar => document.querySelector(bar.getAttribute("href"))),
            rows: rows.length, pills: rows.filter(row => row.textContent.includes("done")).length,
            boxes: document.querySelectorAll(".picture svg a rect.box").length,
            injected: document.querySelectorAll("#injected").length, path: document.querySelectorAll(".steps li").length,
            open: document.querySelectorAll("#stages details[open]").length,
            longest: (document.querySelector("th[data-key=time]").click(),
                rows.every(row => Number(document.querySelector("#stages tbody").dataset.time) >= row.dataset.time)),
            outside: performance.getEntriesByType("resource").length,
        });
        }</script></body>"##;
    let html = std::fs::read_to_string(&page).expect("was written");
    assert!(html.contains("&lt;b id=") || html.contains("&#60;b id="), "names are text");
    std::fs::write(&page, html.replace("</body>", script)).expect("writes");
    let title = |more: &[&str]| {
        let document = document(&place, &page, more);
        let title = document.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
        let title = title.expect("a title").replace("&quot;", "\"");
        serde_json::from_str::<serde_json::Value>(&title).unwrap_or_else(|_| panic!("{title}"))
    };
    let light = title(&["--blink-settings=preferredColorScheme=1"]);
    let dark = title(&["--blink-settings=preferredColorScheme=0"]);
    assert_eq!(light["fits"], true, "{light:#}");
    assert_ne!(light["ground"], dark["ground"]);
    // Both pipelines begin with the same stage.
    for (what, count) in [("bars", 4), ("failed", 1), ("rows", 4), ("pills", 3), ("injected", 0), ("outside", 0)] {
        assert_eq!(light[what], count, "{what} of {light:#}");
    }
    assert!(light["lanes"].as_u64() >= Some(1) && light["boxes"].as_u64() >= Some(4), "{light:#}");
    assert!(light["path"].as_u64() >= Some(2), "{light:#}");
    assert_eq!((&light["led"], &light["longest"], &light["open"]), (&json!(true), &json!(true), &json!(0)));
}
