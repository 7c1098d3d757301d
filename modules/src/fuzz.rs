//! The parsers of outside bytes in this crate as functions of bytes: what fuzzers and the tests feed.
//!
//! None may panic, take long, or take much memory, whatever it is fed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use osbc_ir::redact;
use osbc_module_api::{Entry, Kind, Library, SourceContext, Value, json};
use osbc_pytext::fnmatch::Pattern;

use crate::archives::archive::transform::Transform;
use crate::archives::archive::{Target, names::Names};
use crate::archives::compression;
use crate::archives::cpio;
use crate::boot::grub;
use crate::boot::pe;
use crate::builtin::{self, BuiltIn, MODULES};
use crate::containers::image_layers::Layers;
use crate::containers::registry_image;
use crate::debian;
use crate::debian::control::Control;
use crate::debian::package::Package;
use crate::disks::disk_image;
use crate::disks::lvm2::{Disk, Item};
use crate::disks::partition_table;
use crate::downloads::checksum::Checksum;
use crate::downloads::download;
use crate::downloads::mirrors;
use crate::downloads::proxy;
use crate::downloads::rhsm;
use crate::downloads::url::{Url, unquote};
use crate::on_disk::OnDiskLibrary;
use crate::texts::ini;
use crate::texts::toml;
use crate::texts::yaml;
use crate::trees::lorax;
use crate::trees::pacman_database;
use crate::trees::runners;

/// A parser by its name, and what feeds it.
pub type Parser = (&'static str, fn(&[u8]));

/// The parsers.
pub const PARSERS: &[Parser] = &[
    ("compression", |data| {
        let Ok(Some(decoder)) = compression::decoder(data) else { return };
        // What is unpacked is content, of any size.
        let _ = io::copy(&mut decoder.take(16 << 20), &mut io::sink());
    }),
    ("control", |data| {
        for paragraph in Control::all(&String::from_utf8_lossy(data)) {
            paragraph.field("Description");
            paragraph.relations("Depends");
            paragraph.full_name();
        }
    }),
    ("cpio", |data| {
        let links = BTreeMap::from([(b"directory".to_vec(), 3)]);
        with_file(data, |_, file| drop(cpio::set_links(file, 3, &links)));
    }),
    ("deb", |data| {
        with_file(data, |path, _| {
            let Ok(package) = Package::open(path) else { return };
            package.lines("conffiles").count();
            let _ = package.each_control_file(|_, content| io::copy(content, &mut io::sink()).map(drop));
            let Ok(mut files) = package.data() else { return };
            for member in debian::archive::members(&mut files).into_iter().flatten() {
                let Ok(_) = member else { return };
            }
        });
    }),
    ("disk-image", |data| with_file(data, |_, file| drop(disk_image::of_header(file)))),
    ("elf", |data| drop(crate::trees::chroot::architecture::number(data))),
    ("grub", |data| drop(grub::environment(&[("value", String::from_utf8_lossy(data).into_owned())]))),
    ("http-head", |data| {
        if let Some(end) = download::head::end_of_head(data) {
            assert!(download::head::lean(&data[..end]).len() <= end);
        }
    }),
    ("inline", |data| {
        let row = builtin::find(Kind::Source, "org.osbuild.inline").expect("it is built in");
        let Entry::Source(source) = row.def.entry else { return };
        let item = json!({"encoding": "lzma+base64", "data": BASE64_STANDARD.encode(data)});
        with_directory(|directory| {
            let context = SourceContext {
                options: &Value::Null,
                target: &directory.join("item"),
                shared: directory,
                progress: &|_, _| {},
                interrupted: &|| false,
                environment: &BTreeMap::new(),
            };
            let _ = (source.fetch)(&context, NOTHING, &item);
            Ok(())
        });
    }),
    ("ini", |data| {
        let text = String::from_utf8_lossy(data);
        let Ok(mut document) = ini::Document::parse(&text, "etc/x.conf") else { return };
        assert_eq!(document.text(), text, "what is not changed stays");
        document.ensure_section("a");
        document.set("a", "k", "one\ntwo").expect("the section is there");
        ini::Document::parse(&document.text(), "x").expect("what is written can be read");
    }),
    ("lorax", |data| {
        let text = String::from_utf8_lossy(data);
        lorax::unescaped(&text);
        let _ = lorax::expanded(&[text.into_owned()]);
    }),
    ("lvm2", |data| {
        with_file(data, |path, _| {
            let Ok(mut disk) = Disk::open(path) else { return };
            disk.metadata.rename_group("new");
            disk.metadata.set("creation_time", Item::Number(1));
            // Areas may lie on each other, so what is read again need not be what was written.
            let _ = disk.write().and_then(|()| Disk::open(path));
        });
    }),
    ("lvm2-text", |data| {
        use crate::disks::lvm2::Metadata;
        let Ok(metadata) = Metadata::parse(&String::from_utf8_lossy(data)) else { return };
        metadata.text();
    }),
    ("mirrors", |data| {
        let text = String::from_utf8_lossy(data);
        let _ = (mirrors::of_list(&text), mirrors::of_metalink(&text));
    }),
    ("module-options", |data| {
        // The first byte chooses the module, as far as the options do not.
        let Some((first, text)) = data.split_first() else { return };
        let Ok(options) = serde_json::from_slice::<Value>(text) else { return };
        let count = MODULES.len();
        for row in MODULES.iter().cycle().skip(usize::from(*first) * 2 % count).take(2) {
            let _ = (row.def.parse)(&options);
        }
    }),
    ("names", |data| {
        with_directory(|directory| {
            fs::write(directory.join("passwd"), data)?;
            fs::write(directory.join("group"), data)?;
            let _ = Names::read(directory).map(|names| names.user(0).len() + names.group(0).len());
            Ok(())
        });
    }),
    ("oci-layout", |data| {
        with_directory(|directory| {
            let blobs = directory.join("blobs/sha256");
            fs::create_dir_all(&blobs)?;
            // The rest of an image, for an index that names it.
            for blob in [&b"layer"[..], MANIFEST, data] {
                fs::write(blobs.join(&registry_image::digest(blob)[7..]), blob)?;
            }
            fs::write(directory.join("index.json"), data)?;
            let _ = Layers::in_layout(directory);
            fs::write(directory.join("manifest.json"), data)?;
            let _ = Layers::flat(directory);
            Ok(())
        });
    }),
    ("on-disk-module", |data| {
        with_directory(|directory| {
            let stages = directory.join("stages");
            fs::create_dir_all(&stages)?;
            for name in ["source", "described", "described.meta.json"] {
                fs::write(stages.join(name), data)?;
            }
            let library = OnDiskLibrary::new(directory);
            for name in ["source", "described"] {
                let _ = library.module(Kind::Stage, name);
            }
            Ok(())
        });
    }),
    ("os-release", |data| {
        let names = BuiltIn.names(Kind::Runner).unwrap_or_default();
        runners::for_host(&String::from_utf8_lossy(data), names.iter().map(String::as_str));
    }),
    ("pacman", |data| drop(pacman_database::package(&String::from_utf8_lossy(data)))),
    ("partition-table", |data| {
        if let Ok(report) = partition_table::Report::parse(data) {
            report.numbered(14);
        }
    }),
    ("pattern", |data| {
        Pattern::new(&String::from_utf8_lossy(data)).is_match("usr/lib/x");
    }),
    ("pe", |data| {
        if let Ok(layout) = pe::Layout::read(data) {
            layout.align(layout.end);
        }
        for place in [pe::timestamp(data), pe::checksum_place(data)].into_iter().flatten() {
            assert!(place + 4 <= data.len(), "what is written there lies in the file");
        }
        let _ = pe::checksum(data);
    }),
    ("proxy", |data| {
        let text = String::from_utf8_lossy(data);
        let (url, exceptions) = text.split_once('\n').unwrap_or((&text, ""));
        let variables = [("http_proxy", url), ("no_proxy", exceptions)];
        let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for place in ["http://h.test/", "http://10.0.0.1:81/", "http://[::1]/"] {
            let _ = Url::parse(place).map(|place| proxy::choose(&place, &environment));
        }
    }),
    ("redirection", |data| {
        for from in ["http://h:1/a/b?c", "https://me:secret@h"] {
            let _ = Url::parse(from).map(|from| download::target::Target::first(&from).follow(data));
        }
    }),
    ("repo-file", |data| drop(rhsm::parse(&String::from_utf8_lossy(data), Path::new("/none"), Path::new("/none")))),
    ("toml", |data| {
        let Ok(table) = toml::Table::parse(&String::from_utf8_lossy(data)) else { return };
        toml::Table::parse(&table.text()).expect("what is written can be read");
    }),
    ("transform", |data| {
        if let Ok(transform) = Transform::parse(&String::from_utf8_lossy(data)) {
            let _ = transform.apply(b"usr/lib/aa", Target::Member);
        }
    }),
    ("url", |data| {
        let text = String::from_utf8_lossy(data);
        unquote(&text);
        let _ = Checksum::parse(&text);
        if let Ok(url) = Url::parse(&text) {
            url.request();
            url.display();
        }
        assert_eq!(redact::masked(&text).len(), text.len(), "all keeps its place");
        assert_eq!(redact::url(&redact::url(&text)), redact::url(&text), "once is enough");
        redact::text(&text);
    }),
    ("yaml", |data| {
        if let Ok(value) = serde_json::from_slice::<Value>(data) {
            yaml::dump(&value, "sources");
        }
    }),
];

/// The checksum of an empty item.
const NOTHING: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The manifest that the seeds of `oci-layout` name.
const MANIFEST: &[u8] =
    br#"{"layers":[{"digest":"sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85","size":5}]}"#;

/// Calls `parser` with a file that holds these bytes, and its path.
fn with_file(data: &[u8], parser: impl FnOnce(&Path, &File)) {
    let file = tempfile::NamedTempFile::new().and_then(|mut file| file.write_all(data).map(|()| file));
    if let Ok(file) = file {
        parser(file.path(), file.as_file());
    }
}

/// Calls `parser` with a directory of its own.
fn with_directory(parser: impl FnOnce(&Path) -> io::Result<()>) {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    parser(directory.path()).expect("there is room for the files");
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_parser_survives_what_it_is_fed() {
        osbc_fixtures::fuzz::survive(super::PARSERS);
    }
}
