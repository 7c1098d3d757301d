//! Pictures as specifications: what is in them, that every writer escapes, that Graphviz accepts the text.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::*;
use crate::passes::share;
use crate::passes::sketch::{Sketch, manifest};

const MANIFEST: &str = "
    build: packages<#a,#b
    os(build): packages<#a,#b hostname
    tar(build): tar<os
    also(build): tar<os
    image(build): packages<#a,#b hostname@<#c
";

const ALL: [(Level, Format); 8] = [
    (Level::Pipeline, Format::Dot),
    (Level::Pipeline, Format::Mermaid),
    (Level::Pipeline, Format::Json),
    (Level::Pipeline, Format::Svg),
    (Level::Stage, Format::Dot),
    (Level::Stage, Format::Mermaid),
    (Level::Stage, Format::Json),
    (Level::Stage, Format::Svg),
];

fn links(drawing: &Drawing) -> Vec<String> {
    let label = |index: usize| {
        let vertex = &drawing.vertices[index];
        match vertex.cluster {
            Some(cluster) => format!("{}/{}", drawing.clusters[cluster].name, vertex.title),
            None if vertex.kind == Kind::Item => format!("{} {}", vertex.title, vertex.subtitle),
            None => vertex.title.clone(),
        }
    };
    let links = drawing.links.iter();
    links.map(|link| format!("{} -{}-> {}", label(link.from), edge_name(link.kind), label(link.to))).collect()
}

#[test]
fn stages_are_drawn_once_with_items_and_build_trees_folded() {
    let sketch = Sketch::shared(MANIFEST);
    let drawing = Drawing::new(&sketch.graph, &as_planned(&sketch.graph, None), Level::Stage).folded();
    assert_eq!(
        links(&drawing),
        [
            "curl 2 items -fetch-> build/packages",
            "curl 2 items -fetch-> os/packages",
            "curl #c -fetch-> image/hostname",
            "build/packages -build-> os/packages",
            "build/packages -build-> tar/tar",
            "build/packages -build-> image/hostname",
            "os/packages -base-> os/hostname",
            "os/packages -base-> image/hostname",
            "os/hostname -input-> tar/tar",
        ]
    );
    assert_eq!(drawing.other_names().values().collect::<Vec<_>>(), [&["also"]], "`also` is a second name of `tar`");
}

#[test]
fn pipelines_are_drawn_with_what_joins_them() {
    let sketch = Sketch::shared(MANIFEST);
    let plan = sketch.plan(&["tar", "also", "image"], &["os/packages", "#c"]);
    let drawing = Drawing::new(&sketch.graph, &as_planned(&sketch.graph, Some(&plan)), Level::Pipeline).folded();
    assert_eq!(
        links(&drawing),
        [
            "curl -fetch-> build",
            "curl -fetch-> os",
            "curl -fetch-> image",
            "build -build-> os",
            "build -build-> tar",
            "build -build-> also",
            "build -build-> image",
            "os -input-> tar",
            "os -input-> also",
            "os -base-> image",
            "tar -base-> also",
        ]
    );
    let labels: Vec<_> = drawing
        .vertices
        .iter()
        .map(|vertex| (vertex.title.as_str(), vertex.subtitle.as_str(), vertex.mark.map(Mark::name)))
        .collect();
    assert_eq!(
        labels,
        [
            ("curl", "3 items: 2 fetch, 1 cached", Some("fetch")),
            ("build", "1 stage: 1 run", Some("run")),
            ("os", "2 stages: 1 run, 1 cached", Some("run")),
            ("tar", "1 stage: 1 run", Some("run")),
            ("also", "1 stage: 1 shared", Some("shared")),
            ("image", "2 stages: 1 run, 1 shared", Some("run")),
        ]
    );
}

#[test]
fn the_data_names_every_node_edge_and_pipeline() {
    let sketch = Sketch::shared("os: packages<#a\nsame: packages<#a\nempty:");
    let plan = sketch.plan(&["same"], &[]);
    let text = draw(&sketch.graph, Some(&plan), Level::Stage, Format::Json);
    let stage = sketch.graph.stage_node(sketch.node("os/packages")).expect("a stage");
    let (id, osbuild_id) = (stage.id.to_string(), stage.compat.to_string());
    let item = sketch.graph.item_node(sketch.node("#a")).expect("an item").id.to_string();
    assert_eq!(
        serde_json::from_str::<Value>(&text).expect("JSON"),
        json!({
            "nodes": [
                {
                    "id": item, "kind": "item", "module": "org.osbuild.curl", "pipelines": [],
                    "action": "fetch", "reason": "source item of org.osbuild.packages in os"
                },
                {
                    "id": id, "osbuild_id": osbuild_id, "kind": "stage", "module": "org.osbuild.packages",
                    "pipelines": ["os", "same"], "action": "run", "reason": "exported as same"
                },
            ],
            "edges": [{"from": item, "to": id, "kind": "fetch"}],
            "pipelines": [
                {"name": "os", "node": id},
                {"name": "same", "node": id},
                {"name": "empty", "node": null},
            ]
        })
    );
}

#[test]
fn data_is_not_folded() {
    let sketch = Sketch::shared(MANIFEST);
    let text = draw(&sketch.graph, None, Level::Stage, Format::Json);
    let data: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(data["nodes"].as_array().map(Vec::len), Some(sketch.graph.dag.node_count()));
    assert_eq!(data["edges"].as_array().map(Vec::len), Some(sketch.graph.dag.edge_count()));
    assert!(data["nodes"][0].get("action").is_none(), "without a plan there are no actions");
}

#[test]
fn mermaid_reads_like_this() {
    let sketch = Sketch::shared("build: packages<#a\nos(build): hostname");
    let plan = sketch.plan(&["os"], &["build/packages"]);
    let (build, os) =
        (sketch.graph.stage_node(sketch.node("build/packages")), sketch.graph.stage_node(sketch.node("os/hostname")));
    let short = |node: Option<&osbc_ir::StageNode>| node.map(|node| node.id.short()).unwrap_or_default();
    let (build, os) = (short(build), short(os));
    assert_eq!(
        draw(&sketch.graph, Some(&plan), Level::Stage, Format::Mermaid),
        format!(
            "flowchart LR
  n0[(\"curl<br/><small>#35;a</small>\")]:::unneeded
  subgraph p0[\"build\"]
    n1[\"packages<br/><small>{build}</small>\"]:::cached
  end
  subgraph p1[\"os\"]
    n2[\"hostname<br/><small>{os}</small>\"]:::run
  end
  n0 -..-> n1
  n1 -.-> p1
  %% build
  linkStyle 1 stroke:#a58a5c
  %% fetch
  linkStyle 0 stroke:#3f9d91
  classDef run fill:#ffedd0,stroke:#d08400,color:#3d2a00
  classDef cached fill:#dff3e4,stroke:#3a9a57,color:#0f3a1d
  classDef unneeded fill:#f4f5f7,stroke:#c3c8d0,color:#8a93a1
"
        )
    );
}

/// A graph whose names hold everything that some writer could trip over.
fn hostile() -> Graph {
    let mut manifest = manifest(MANIFEST);
    for pipeline in &mut manifest.pipelines {
        pipeline.name.push_str("\"<b>&amp;\\n'\\\n\t\u{1}]]>#;--> {|} é😀");
        for stage in &mut pipeline.stages {
            stage.module.name.push_str("\"</text>&<!--\\");
        }
    }
    share(manifest.finalize())
}

#[test]
fn no_name_breaks_the_picture() {
    let graph = hostile();
    for level in [Level::Pipeline, Level::Stage] {
        let svg = draw(&graph, None, level, Format::Svg);
        assert_eq!(unbalanced(&svg), None, "{svg}");
        let mermaid = draw(&graph, None, level, Format::Mermaid);
        let broken = |line: &&str| line.contains("<b>") || line.contains("-->") && line.contains("é");
        assert_eq!(mermaid.lines().find(broken), None, "names are escaped");
        let data = draw(&graph, None, level, Format::Json);
        assert!(serde_json::from_str::<Value>(&data).is_ok());
    }
}

/// The first closing tag that closes nothing, or the first tag that is never closed.
fn unbalanced(xml: &str) -> Option<String> {
    let mut open: Vec<&str> = Vec::new();
    for tag in xml.split('<').skip(1) {
        let (tag, _) = tag.split_once('>')?;
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Some(name.to_owned());
            }
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap_or_default());
        }
    }
    open.pop().map(str::to_owned)
}

#[test]
fn pictures_of_nothing_and_of_much_are_pictures() {
    let nothing = Sketch::shared("");
    let much: String = (0..1000).map(|index| format!("p{index}: a{index} b c d e f g h i<#x{index}\n")).collect();
    let much = Sketch::shared(&much);
    for (level, format) in ALL {
        assert!(!draw(&nothing.graph, None, level, format).is_empty());
        let picture = draw(&much.graph, None, level, format);
        assert!(picture.contains("p999"), "{level:?} {format:?}");
    }
}

/// Needs Graphviz. Without it the test fails where `CI` is set and returns early elsewhere.
#[test]
fn needs_dot_graphviz_accepts_the_text() {
    if Command::new("dot").arg("-V").stderr(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none(), "install graphviz: this test may not be left out in CI");
        return;
    }
    let sketch = Sketch::shared(MANIFEST);
    let plan = sketch.plan(&["tar"], &["os/packages"]);
    for level in [Level::Pipeline, Level::Stage] {
        for text in [
            draw(&sketch.graph, Some(&plan), level, Format::Dot),
            draw(&hostile(), None, level, Format::Dot),
            draw(&Sketch::shared("").graph, None, level, Format::Dot),
        ] {
            let mut dot = Command::new("dot")
                .arg("-Tsvg")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("dot starts");
            dot.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("dot reads");
            let output = dot.wait_with_output().expect("dot ends");
            let complaints = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{text}");
        }
    }
}
