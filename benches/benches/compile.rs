//! The compiler's arrows one by one: parse and validate, finalize (ids), passes; and all of them, as they grow.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use osbc_benches::{catalog, graph, host, lowered, text};
use osbc_compiler::passes::{Request, Retention, ask, default_exports, plan};
use osbc_compiler::{Host, compile, format};
use osbc_fixtures::synthetic;
use osbc_ir::{CachedSet, NodeId};

/// 10,000 stages in 1,000 pipelines.
fn arrows(c: &mut Criterion) {
    let mut group = c.benchmark_group("10,000 stages");
    group.sample_size(20);
    let catalog = catalog();
    let source = text(&synthetic(1_000, 10));
    group.throughput(Throughput::Bytes(source.as_str().len() as u64));
    group.bench_function("parse", |b| b.iter(|| black_box(format::parse(&source)).is_ok()));
    group.bench_function("parse, validate, lower", |b| {
        b.iter(|| compile(&source, &catalog, Host::bare(&host())).is_ok())
    });
    group.throughput(Throughput::Elements(10_000));
    let manifest = lowered(&source, &catalog);
    group.bench_function("finalize: both ids of every node", |b| {
        b.iter_batched(|| manifest.clone(), |manifest| manifest.finalize(), BatchSize::LargeInput);
    });
    let graph = graph(manifest);
    let exports = default_exports(&graph).expect("the manifest names no exports");
    for percent in [0, 50, 100] {
        let have = have(&graph, percent);
        group.bench_function(format!("plan with {percent} % in the store"), |b| {
            b.iter(|| {
                let request = Request::Exports(exports.clone());
                ask(&graph, &request, &mut |id| black_box(have.contains(&id)));
                plan(Arc::clone(&graph), request, &have, Retention::Every, &|_, _| None)
            });
        });
    }
    group.bench_function("all: text to plan", |b| {
        b.iter(|| {
            let graph = osbc_benches::graph(lowered(&source, &catalog));
            let request = Request::Exports(default_exports(&graph).expect("no names"));
            plan(graph, request, &CachedSet::default(), Retention::Every, &|_, _| None)
        });
    });
    group.finish();
}

/// The ids that a store has which was filled by building the first pipelines.
fn have(graph: &osbc_ir::Graph, percent: usize) -> CachedSet {
    let nodes = graph.dag.node_count();
    graph
        .dag
        .node_indices()
        .take(nodes * percent / 100)
        .map(|node| graph.id(node))
        .collect::<Vec<NodeId>>()
        .into_iter()
        .collect()
}

/// Text to plan at sizes that double, to see that it grows linearly.
fn growth(c: &mut Criterion) {
    let mut group = c.benchmark_group("growth");
    group.sample_size(10);
    let catalog = catalog();
    for stages in [12_500, 25_000, 50_000, 100_000] {
        let source = text(&synthetic(stages / 10, 10));
        group.throughput(Throughput::Elements(stages as u64));
        group.bench_with_input(BenchmarkId::from_parameter(stages), &source, |b, source| {
            b.iter(|| {
                let graph = osbc_benches::graph(lowered(source, &catalog));
                let request = Request::Exports(default_exports(&graph).expect("no names"));
                plan(graph, request, &CachedSet::default(), Retention::Every, &|_, _| None)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, arrows, growth);
criterion_main!(benches);
