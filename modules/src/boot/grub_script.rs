//! Values in scripts of GRUB, such as `grub.cfg`: what stands for itself there, and what runs nothing.

use osbc_module_api::Error;

use crate::texts::shell::single_quoted;

/// What means something to GRUB outside of quotes.
const SPECIAL: &str = " \t\n\"'\\$;|&<>{}";

/// Returns a value as a word of a command: between single quotes where it needs them.
pub(crate) fn word(value: &str) -> String {
    let plain = !value.is_empty() && !value.starts_with('#') && !value.contains(|c| SPECIAL.contains(c));
    if plain { value.to_owned() } else { single_quoted(value) }
}

/// Returns a value as it stands between single quotes that are there already.
pub(crate) fn in_single_quotes(value: &str) -> String {
    value.replace('\'', r"'\''")
}

/// Returns the argument that names a kernel's root: `root=UUID=…`, `root=LABEL=…` or `root=/dev/…`.
///
/// # Errors
/// The name has a quote or a control character, which no kernel takes there.
pub(crate) fn root(kind: Option<&str>, name: &str) -> Result<String, Error> {
    if name.contains(|c: char| c == '"' || c.is_control()) {
        return Err(Error::failed(format!("no kernel finds a root called {name:?}; call it by its UUID")));
    }
    let root = kind.map_or(name.to_owned(), |kind| format!("{kind}={name}"));
    Ok(if root.contains(char::is_whitespace) { format!("root=\"{root}\"") } else { format!("root={root}") })
}

/// Returns options of a kernel as they follow the command `linux`.
///
/// Quotes stay, since GRUB hands on what is between them as one option, as a kernel takes it; all else that means
/// something to GRUB is made to stand for itself.
///
/// # Errors
/// A quote in the option `name` has no end.
pub(crate) fn kernel_options(name: &str, options: &str) -> Result<String, Error> {
    let mut text = String::with_capacity(options.len());
    let mut quote = None;
    let mut before = ' ';
    for c in options.chars() {
        let escaped = match quote {
            None => c == '\\' || c == '#' && before.is_whitespace() || "$;|&<>{}".contains(c),
            Some('"') => c == '\\' || c == '$',
            Some(_) => false,
        };
        if escaped {
            text.push('\\');
        }
        text.push(c);
        match quote {
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        before = c;
    }
    match quote {
        None => Ok(text),
        Some(open) => Err(Error::failed(format!("a `{open}` in the option `{name}` has no end: {options:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use osbc_fixtures::has_tool;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_words_and_options_stay_as_they_are() {
        for value in ["root", "9c6ae55b-cf88", "a#b", "vm_linuz-6.1+x", "é"] {
            assert_eq!(word(value), value);
        }
        for options in ["ro quiet console=ttyS0,115200n8", "acpi_osi=!Windows#1", "dyndbg=\"file a/* +p\" a='b c'"] {
            assert_eq!(kernel_options("o", options).unwrap(), options);
        }
    }

    #[test]
    fn what_means_something_to_grub_stands_for_itself() {
        assert_eq!(word("my boot"), "'my boot'");
        assert_eq!(word("it's"), r"'it'\''s'");
        assert_eq!(word(""), "''");
        let options = kernel_options("o", r#"a=$b;c | #x {y} "q $z\1" '$w' inst.stage2=hd:LABEL=A\x20B"#).unwrap();
        assert_eq!(options, r#"a=\$b\;c \| \#x \{y\} "q \$z\\1" '$w' inst.stage2=hd:LABEL=A\\x20B"#);
        assert!(kernel_options("cmdline", "a=\"b").unwrap_err().to_string().contains("`cmdline` has no end"));
    }

    #[test]
    fn a_root_may_have_blanks_in_its_name() {
        assert_eq!(root(Some("LABEL"), "my root").unwrap(), "root=\"LABEL=my root\"");
        assert_eq!(root(Some("UUID"), "1-2").unwrap(), "root=UUID=1-2");
        assert_eq!(root(None, "/dev/vda1").unwrap(), "root=/dev/vda1");
        assert!(root(Some("LABEL"), "a\"b").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn grub_takes_the_script(value in "([ -~]|[\té€])*", options in "([ -!#-&(-~]|\"[ -!#-~]*\"|é)*") {
            if !has_tool("grub-script-check") {
                return Ok(());
            }
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let (word, quoted) = (word(&value), in_single_quotes(&value));
            let options = kernel_options("o", &options).unwrap();
            writeln!(file, "menuentry '{quoted}' --id {word} {{\n\tlinux /vmlinuz {options}\n}}").unwrap();
            let check = Command::new("grub-script-check").arg(file.path()).output().unwrap();
            prop_assert!(check.status.success(), "{check:?}");
        }
    }
}
