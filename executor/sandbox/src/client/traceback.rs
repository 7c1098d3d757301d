//! Python's tracebacks in what a program wrote: many lines of which the last one says what happened.

/// What each of them begins with.
const BEGIN: &str = "Traceback (most recent call last):";

/// The line of the last traceback in a text that says what happened.
pub fn last_line(text: &str) -> Option<&str> {
    let (_, traceback) = text.rsplit_once(BEGIN)?;
    // Frames are indented.
    let line = traceback.lines().skip(1).find(|line| !line.is_empty() && !line.starts_with(' '))?;
    let name = line.split(':').next().unwrap_or_default();
    let is_name = |name: &str| name.chars().all(|char| char.is_alphanumeric() || "._".contains(char));
    is_name(name).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_traceback_says_what_happened() {
        let frames = "  File \"/run/osbuild/bin/a\", line 1, in <module>\n    main()\n    ^^^^^^\n";
        let of = |end: &str| format!("before\n{BEGIN}\n{frames}{end}");
        assert_eq!(last_line(&of("OSError: [Errno 2] no: 'x'\n")), Some("OSError: [Errno 2] no: 'x'"));
        assert_eq!(
            last_line(&of("subprocess.CalledProcessError: Command\nafter\n")),
            Some("subprocess.CalledProcessError: Command")
        );
        assert_eq!(last_line(&of("KeyboardInterrupt")), Some("KeyboardInterrupt"));
        let chained = of("KeyError: 1\n\nDuring handling of the above exception, another exception occurred:\n\n");
        assert_eq!(last_line(&(chained + &of("ValueError: 2\n"))), Some("ValueError: 2"));
        for other in ["", "Error: no\n", BEGIN, &of(""), &of("it was cut off here: x\n")] {
            assert_eq!(last_line(other), None, "{other:?}");
        }
    }
}
