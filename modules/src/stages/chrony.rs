//! Configures chrony's time sources.
//!
//! Edits `/etc/chrony.conf`, which must be there. All lines that begin with `server`, `pool` or `peer` go; new ones are put
//! before the rest. At least one option is needed. An empty `leapsectz` takes the setting away.
//!
//! ```json
//! {
//!   "type": "org.osbuild.chrony",
//!   "options": {
//!     "servers": [{ "hostname": "time.example.com", "prefer": true, "minpoll": 4 }],
//!     "refclocks": [{ "driver": { "name": "PHC", "path": "/dev/ptp0" }, "poll": 3 }]
//!   }
//! }
//! ```

use osbc_ir::Number;
use osbc_module_api::*;

use crate::texts::one_line;
use crate::texts::text;

pub(crate) static MODULE: ModuleDef = ModuleDef {
    kind: Kind::Stage,
    name: "org.osbuild.chrony",
    revision: 2,
    capabilities: &[],
    requires: &[],
    schema: || Schema::stage::<Options>().done(),
    rejects: &[
        r#"{"options": {}}"#,
        r#"{"options": {"timeservers": "a"}}"#,
        r#"{"options": {"servers": [{"prefer": true}]}}"#,
        r#"{"options": {"servers": [{"hostname": "a", "minpoll": -7}]}}"#,
        r#"{"options": {"servers": [{"hostname": "a", "maxpoll": 25}]}}"#,
        r#"{"options": {"servers": [{"hostname": "a", "port": 1}]}}"#,
        r#"{"options": {"refclocks": [{}]}}"#,
        r#"{"options": {"refclocks": [{"driver": {"name": "GPS"}}]}}"#,
        r#"{"options": {"refclocks": [{"driver": {"name": "SHM", "segment": 1, "perm": "600"}}]}}"#,
        r#"{"options": {"refclocks": [{"driver": {"name": "SOCK", "path": "run/x"}}]}}"#,
        r#"{"options": {"leapsectz": 1}}"#,
    ],
    parse: parse::<Options>,
    entry: Entry::Stage(run),
};

const FILE: &str = "etc/chrony.conf";

/// The options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
struct Options {
    /// Names or addresses of NTP servers, each asked in a burst at the start.
    #[serde(default)]
    timeservers: Vec<String>,
    /// NTP servers with settings of their own.
    #[serde(default)]
    servers: Vec<Server>,
    /// The time zone that says when the next leap second is.
    leapsectz: Option<String>,
    /// Clocks of the machine.
    #[serde(default)]
    refclocks: Vec<RefClock>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Server {
    /// Name or address.
    hostname: String,
    /// The shortest interval between requests, as a power of 2 in seconds.
    #[schemars(range(min = -6, max = 24))]
    minpoll: Option<i64>,
    /// The longest interval between requests, as a power of 2 in seconds.
    #[schemars(range(min = -6, max = 24))]
    maxpoll: Option<i64>,
    /// Whether to ask in a burst at the start.
    #[serde(default = "yes")]
    iburst: bool,
    /// Whether to prefer it over the others.
    #[serde(default)]
    prefer: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RefClock {
    /// What drives the clock.
    driver: Driver,
    /// How often the time is processed, as a power of 2 in seconds.
    #[schemars(with = "Option<i64>")]
    poll: Option<Number>,
    /// How often the driver takes a sample, as a power of 2 in seconds.
    #[schemars(with = "Option<i64>")]
    dpoll: Option<Number>,
    /// By how many seconds it is always wrong.
    #[schemars(with = "Option<f64>")]
    offset: Option<Number>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "name", deny_unknown_fields)]
enum Driver {
    /// Pulses per second, of the kernel.
    #[serde(rename = "PPS")]
    Pps {
        /// The device.
        device: Node,
        /// Whether the falling edge counts.
        #[serde(default)]
        clear: bool,
    },
    /// Shared memory.
    #[serde(rename = "SHM")]
    Shm {
        /// The segment's number.
        #[schemars(with = "i64")]
        segment: Number,
        /// The segment's mode, in octal.
        #[schemars(regex(pattern = "^[0-7]{4}$"))]
        perm: Option<String>,
    },
    /// A Unix domain socket.
    #[serde(rename = "SOCK")]
    Sock {
        /// The socket.
        path: Node,
    },
    /// The clock of a network card.
    #[serde(rename = "PHC")]
    Phc {
        /// The device.
        path: Node,
        /// Whether not to take precise cross timestamps.
        #[serde(default)]
        nocrossts: bool,
        /// Whether the clock stamps the pulses of an external signal.
        #[serde(default)]
        extpps: bool,
        /// The pin of that signal.
        #[schemars(with = "Option<i64>")]
        pin: Option<Number>,
        /// The channel of that signal.
        #[schemars(with = "Option<i64>")]
        channel: Option<Number>,
        /// Whether that signal's falling edge counts.
        #[serde(default)]
        clear: bool,
    },
}

/// An absolute path without `..`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Node(#[schemars(regex(pattern = r"^\/(?!\.\.)((?!\/\.\.\/).)+$"))] String);

fn run(cx: &StageContext) -> Result<(), Error> {
    one_line::check(&cx.options)?;
    let Options { timeservers, servers, leapsectz, refclocks } = cx.options()?;
    let zones = leapsectz.iter().filter(|zone| !zone.is_empty()).map(|zone| ("leapsectz", zone));
    let hosts = servers.iter().map(|server| ("servers.hostname", &server.hostname));
    for (name, word) in zones.chain(hosts).chain(timeservers.iter().map(|server| ("timeservers", server))) {
        one_line::word(name, word)?;
    }
    for clock in &refclocks {
        let name = "refclocks.driver";
        one_line::refuse(name, clock.driver.place(), |c| c.is_whitespace() || c == ':', "a blank or `:`")?;
    }
    let text = text::read(&cx.tree, FILE)?;
    let gone = |line: &str| {
        let words: &[&str] = if leapsectz.is_some() { &["leapsectz "] } else { &[] };
        ["server ", "pool ", "peer "].iter().chain(words).any(|word| line.starts_with(word))
    };
    let kept = text.split('\n').filter(|line| !gone(line)).map(str::to_owned);
    let zone = leapsectz.iter().filter(|zone| !zone.is_empty()).map(|zone| format!("leapsectz {zone}"));
    let mut lines: Vec<String> = refclocks.iter().map(RefClock::line).collect();
    lines.extend(zone);
    lines.extend(servers.iter().map(Server::line));
    lines.extend(timeservers.iter().map(|server| format!("server {server} iburst")));
    lines.extend(kept);
    cx.tree.write(FILE, lines.join("\n"))
}

impl Server {
    fn line(&self) -> String {
        let Self { hostname, minpoll, maxpoll, iburst, prefer } = self;
        let mut line = format!("server {hostname}");
        for (word, said) in [(" prefer", prefer), (" iburst", iburst)] {
            line += if *said { word } else { "" };
        }
        for (word, number) in [("minpoll", minpoll), ("maxpoll", maxpoll)] {
            line += &number.map(|number| format!(" {word} {number}")).unwrap_or_default();
        }
        line
    }
}

impl RefClock {
    fn line(&self) -> String {
        let Self { driver, poll, dpoll, offset } = self;
        let mut line = format!("refclock {}", driver.words());
        for (word, number) in [("poll", poll), ("dpoll", dpoll), ("offset", offset)] {
            if let Some(number) = number {
                line += &format!(" {word} {}", number);
            }
        }
        line
    }
}

impl Driver {
    /// The path of the device or socket, if it is known by one.
    fn place(&self) -> &str {
        match self {
            Self::Pps { device: Node(path), .. }
            | Self::Sock { path: Node(path) }
            | Self::Phc { path: Node(path), .. } => path,
            Self::Shm { .. } => "",
        }
    }

    fn words(&self) -> String {
        let flag = |word: &str, said: &bool| said.then(|| word.to_owned());
        let number = |word: &str, number: &Option<Number>| number.as_ref().map(|number| format!("{word}={number}"));
        let (place, options) = match self {
            Self::Pps { device, clear } => (format!("PPS {}", device.0), vec![flag("clear", clear)]),
            Self::Shm { segment, perm } => {
                let perm = perm.as_ref().map(|perm| format!("perm={perm}"));
                (format!("SHM {}", segment), vec![perm])
            }
            Self::Sock { path } => (format!("SOCK {}", path.0), Vec::new()),
            Self::Phc { path, nocrossts, extpps, pin, channel, clear } => {
                let switches = [flag("nocrossts", nocrossts), flag("extpps", extpps)];
                let [nocrossts, extpps] = switches;
                let (pin, channel) = (number("pin", pin), number("channel", channel));
                (format!("PHC {}", path.0), vec![nocrossts, extpps, pin, channel, flag("clear", clear)])
            }
        };
        let options: Vec<String> = options.into_iter().flatten().collect();
        if options.is_empty() { place } else { format!("{place}:{}", options.join(",")) }
    }
}

#[cfg(test)]
mod tests {
    use osbc_module_api::testing::Case;

    use super::*;

    const BEFORE: &str = "# comment\nserver old iburst\npool 2.pool iburst\n peer kept\nleapsectz right/UTC\n";

    fn after(options: Value) -> String {
        Case::new(&MODULE).file(FILE, BEFORE).run(options).ok().text(FILE)
    }

    #[test]
    fn servers_take_the_place_of_all_time_sources() {
        let servers = json!([
            {"hostname": "a", "prefer": true, "minpoll": 0, "maxpoll": -1},
            {"hostname": "b", "iburst": false},
        ]);
        let lines = "server a prefer iburst minpoll 0 maxpoll -1\nserver b\nserver c iburst\n";
        let rest = "# comment\n peer kept\nleapsectz right/UTC\n";
        assert_eq!(after(json!({"servers": servers, "timeservers": ["c"]})), format!("{lines}{rest}"));
    }

    #[test]
    fn the_leap_second_zone_is_replaced_or_removed() {
        assert_eq!(after(json!({"leapsectz": "right/GMT"})), "leapsectz right/GMT\n# comment\n peer kept\n");
        assert_eq!(after(json!({"leapsectz": ""})), "# comment\n peer kept\n");
    }

    #[test]
    fn clocks_have_their_drivers_options() {
        let clocks = json!([
            {"driver": {"name": "PPS", "device": "/dev/pps0", "clear": true}, "offset": 0.50},
            {"driver": {"name": "SHM", "segment": 1, "perm": "0644"}, "poll": 2, "dpoll": -2},
            {"driver": {"name": "SOCK", "path": "/run/s"}},
            {"driver": {"name": "PHC", "path": "/dev/ptp0", "nocrossts": true, "extpps": true, "pin": 0, "channel": 1}},
        ]);
        let text = after(json!({"refclocks": clocks}));
        let lines: Vec<&str> = text.lines().take(4).collect();
        assert_eq!(
            lines,
            [
                "refclock PPS /dev/pps0:clear offset 0.5",
                "refclock SHM 1:perm=0644 poll 2 dpoll -2",
                "refclock SOCK /run/s",
                "refclock PHC /dev/ptp0:nocrossts,extpps,pin=0,channel=1",
            ]
        );
    }

    #[test]
    fn the_file_must_be_there() {
        let done = Case::new(&MODULE).dir("etc").run(json!({"timeservers": ["a"]}));
        assert!(done.err().starts_with("cannot read /etc/chrony.conf"));
    }

    #[test]
    fn names_are_words() {
        for (options, name) in [
            (json!({"timeservers": ["a iburst"]}), "timeservers"),
            (json!({"servers": [{"hostname": "a\tb"}]}), "servers.hostname"),
            (json!({"leapsectz": "right UTC"}), "leapsectz"),
            (json!({"refclocks": [{"driver": {"name": "SOCK", "path": "/run/a:b"}}]}), "refclocks.driver"),
        ] {
            let error = Case::new(&MODULE).file(FILE, BEFORE).run(options).err().to_owned();
            assert!(error.starts_with(&format!("the option `{name}` has a blank")), "{error}");
        }
    }
}
