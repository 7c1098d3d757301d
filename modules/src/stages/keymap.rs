//! Sets the keyboard layout of the console, its font, and the layouts of X11.
//!
//! Replaces `/etc/vconsole.conf`, and with `x11-keymap` overwrites `/etc/X11/xorg.conf.d/00-keyboard.conf`. Where the
//! build root's `systemd-firstboot` knows the X11 layout that goes with a console keymap, `/etc/vconsole.conf` names it
//! too, as with osbuild.
//!
//! ```json
//! {
//!   "type": "org.osbuild.keymap",
//!   "options": { "keymap": "de-latin1", "font": "eurlatgr", "x11-keymap": { "layouts": ["de", "us"] } }
//! }
//! ```

use osbc_module_api::*;

use crate::boot::firstboot::{self, BuildRoot};
use crate::texts::one_line;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.keymap",
    revision: 2,
    capabilities: &[],
    requires: &[Requirement::Named(|options| {
        firstboot::files_of_keymap(options["keymap"].as_str().unwrap_or_default())
    })],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"keymap": "us", "x11-keymap": {}}}"#,
        r#"{"options": {"keymap": "us", "x11-keymap": {"layouts": []}}}"#,
        r#"{"options": {"keymap": "us", "x11-keymap": {"layouts": ["d"]}}}"#,
        r#"{"options": {"keymap": "us", "x11-keymap": {"layouts": ["de"], "model": "pc105"}}}"#,
        r#"{"options": {"keymap": "us", "font": 8}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(|cx| run(cx, &BuildRoot::here())),
};

const CONSOLE: &str = "etc/vconsole.conf";
const X11: &str = "etc/X11/xorg.conf.d/00-keyboard.conf";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// The keymap of the console, e.g. `us` or `de-latin1`.
    keymap: String,
    /// Keyboard settings of X11.
    x11_keymap: Option<X11Keymap>,
    /// The font of the console.
    font: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct X11Keymap {
    /// Keyboard layouts, the usual one first.
    #[schemars(length(min = 1), inner(length(min = 2)))]
    layouts: Vec<String>,
}

fn run(cx: &StageContext, build_root: &BuildRoot) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { keymap, x11_keymap, font } = cx.options()?;
    if !firstboot::is_name(&keymap) {
        return Err(Error::failed(format!("`{keymap}` is no valid keymap")));
    }
    let mut console = firstboot::assignment("KEYMAP", &keymap);
    for (name, value) in build_root.x11_of(&keymap)? {
        console.push_str(&firstboot::assignment(name, &value));
    }
    if let Some(font) = font.filter(|font| !font.is_empty()) {
        console.push_str(&firstboot::assignment("FONT", &font));
    }
    cx.tree.create_dir_all("etc", 0o755)?;
    cx.tree.replace(CONSOLE, console, 0o644)?;
    let Some(X11Keymap { layouts }) = x11_keymap else { return Ok(()) };
    cx.tree.create_dir_all("etc/X11/xorg.conf.d", 0o755)?;
    for layout in &layouts {
        one_line::refuse("x11-keymap.layouts", layout, |c| matches!(c, '"' | ','), "a `\"` or `,`")?;
    }
    cx.tree.write(X11, x11_section(&layouts))
}

/// The file as `localectl` would write it but for its first line.
fn x11_section(layouts: &[String]) -> String {
    let options = [
        "Identifier \"system-keyboard\"".to_owned(),
        "MatchIsKeyboard \"on\"".to_owned(),
        format!("Option \"XkbLayout\" \"{}\"", layouts.join(",")),
    ];
    let indented: String = options.iter().map(|option| format!("        {option}\n")).collect();
    format!(
        "# Created by osbuild. Do not edit manually, use localectl(1).\nSection \"InputClass\"\n{indented}EndSection\n"
    )
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    static BARE: ModuleDef =
        ModuleDef { entry: Entry::Stage(|cx| run(cx, &BuildRoot::at(tempfile::tempdir().unwrap().path()))), ..MODULE };

    #[test]
    fn the_console_file_is_replaced_and_not_followed() {
        let case = || Case::new(&BARE).file("etc/other", "kept");
        for case in [case(), case().file(CONSOLE, "FONT=old\n"), case().link(CONSOLE, "other")] {
            let done = case.run(json!({"keymap": "us"})).ok();
            assert_eq!((done.text(CONSOLE).as_str(), done.mode(CONSOLE)), ("KEYMAP=us\n", 0o644));
            assert_eq!(done.text("etc/other"), "kept");
            assert!(!done.tree.exists("etc/X11").unwrap());
        }
    }

    #[test]
    fn the_font_follows_the_keymap() {
        let done = Case::new(&BARE).run(json!({"keymap": "us", "font": "eurlatgr"})).ok();
        assert_eq!(done.text(CONSOLE), "KEYMAP=us\nFONT=eurlatgr\n");
        let done = Case::new(&BARE).run(json!({"keymap": "us", "font": ""})).ok();
        assert_eq!(done.text(CONSOLE), "KEYMAP=us\n");
    }

    #[test]
    fn x11_gets_its_layouts() {
        let done = Case::new(&BARE).run(json!({"keymap": "de", "x11-keymap": {"layouts": ["de", "us"]}})).ok();
        let lines: Vec<String> = done.text(X11).lines().map(str::to_owned).collect();
        assert_eq!(lines[1], "Section \"InputClass\"");
        assert_eq!(lines[4], "        Option \"XkbLayout\" \"de,us\"");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn a_path_is_no_keymap() {
        let done = Case::new(&BARE).run(json!({"keymap": "../x"}));
        assert_eq!(done.err(), "`../x` is no valid keymap");
    }
}
