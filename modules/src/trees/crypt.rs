//! Passwords as /etc/shadow holds them: hashes of crypt(3), locked ones, and none.

use std::sync::LazyLock;

use osbc_module_api::Error;
use regex::Regex;

/// `$id$…` of today's methods, and the two that have no such mark: BSDi's and the first one, whose last character has two
/// bits to spare.
static HASH: LazyLock<Regex> = LazyLock::new(|| {
    let hash = r"^(\$[a-z0-9,=-]+\$[^:*!\\\s]*|_[./0-9A-Za-z]{19}|[./0-9A-Za-z]{12}[.26AEIMQUYcgkosw])$";
    Regex::new(hash).expect("a valid expression")
});

/// Checks that the option `name` is what a field for the hash of a password takes.
///
/// # Errors
/// It is a password itself, which nobody could log in by and everybody could read.
pub(crate) fn check(name: &str, password: &str) -> Result<(), Error> {
    let unlocked = password.trim_start_matches('!');
    if unlocked.is_empty() || unlocked.starts_with('*') || password == "!locked" || HASH.is_match(unlocked) {
        return Ok(());
    }
    let advice = "hash it, for example with `openssl passwd -6`, and give what that prints";
    Err(Error::failed(format!("the option `{name}` is no hash of a password; {advice}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_locks_and_nothing_are_taken_and_passwords_are_not() {
        for password in [
            "",
            "!",
            "!!",
            "!locked",
            "*",
            "!*",
            "*NP*",
            "$6$x$y",
            "$6$rounds=5000$salt$Wn/.",
            "!$6$x$y",
            "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
            "$2y$10$abcdefghijklmnopqrstuu",
            "_J9..K0AyUubD0fHVgKU",
            "rqXexS6ZhobKA",
        ] {
            check("password", password).unwrap();
        }
        for password in
            ["secret", "!secret", "Qx", "administrator", "pa$$word", "$ecret", "correct horse", "$6$a b", "$6$a:b"]
        {
            let error = check("users.web.password", password).unwrap_err().to_string();
            assert!(error.starts_with("the option `users.web.password` is no hash") && !error.contains(password));
        }
    }
}
