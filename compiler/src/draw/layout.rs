//! Where things go: blocks in layers from left to right, wires bundled through the gaps between them.
//!
//! The classic layered layout, kept linear in what it draws: layers by longest path, an order within each layer by the mean
//! position of neighbours, heights by pulling blocks towards their neighbours. A wire that crosses layers passes through a
//! bend in each of them; wires from one block share their bends. Knows nothing about what the blocks show.

/// Between layers, where wires run.
const LAYER_GAP: f64 = 56.0;
/// Between the blocks of a layer.
const BLOCK_GAP: f64 = 14.0;
/// How often order and heights are improved.
const ROUNDS: usize = 6;

/// A box to be placed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A connection from the right side of one block to the left side of another, later one; heights from the blocks' tops.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire {
    pub(super) from: usize,
    pub(super) from_y: f64,
    pub(super) to: usize,
    pub(super) to_y: f64,
}

/// A layout: the blocks' upper left corners, every wire's points from left to right, and the size of it all.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    pub(super) corners: Vec<(f64, f64)>,
    pub(super) routes: Vec<Vec<(f64, f64)>>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A block or a bend in a layer.
struct Item {
    height: f64,
    y: f64,
    /// Where it hangs: items of the layers before and after, with the heights at both ends.
    before: Vec<(usize, f64, f64)>,
    after: Vec<(usize, f64, f64)>,
}

/// Places blocks. Wires must lead from lower to higher indices.
pub(super) fn layout(blocks: &[Block], wires: &[Wire]) -> Layout {
    let layers_of = assign_layers(blocks.len(), wires);
    let layer_count = layers_of.iter().max().map_or(0, |last| last + 1);
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); layer_count];
    let mut items: Vec<Item> = Vec::with_capacity(blocks.len());
    for (index, block) in blocks.iter().enumerate() {
        items.push(Item { height: block.height, y: 0.0, before: Vec::new(), after: Vec::new() });
        layers[layers_of[index]].push(index);
    }

    // Bends: for every block, one in each layer that a wire of it crosses.
    let mut bends: Vec<Vec<usize>> = vec![Vec::new(); blocks.len()];
    for wire in wires {
        let crossed = layers_of[wire.to] - layers_of[wire.from] - 1;
        while bends[wire.from].len() < crossed {
            let bend = items.len();
            items.push(Item { height: 0.0, y: 0.0, before: Vec::new(), after: Vec::new() });
            layers[layers_of[wire.from] + bends[wire.from].len() + 1].push(bend);
            let previous = bends[wire.from].last().map_or((wire.from, wire.from_y), |bend| (*bend, 0.0));
            hang(&mut items, previous, (bend, 0.0));
            bends[wire.from].push(bend);
        }
        let last = crossed.checked_sub(1).map_or((wire.from, wire.from_y), |last| (bends[wire.from][last], 0.0));
        hang(&mut items, last, (wire.to, wire.to_y));
    }

    order(&mut layers, &mut items);
    settle(&layers, &mut items);

    let top = items.iter().map(|item| item.y).fold(f64::INFINITY, f64::min);
    let mut left = Vec::with_capacity(layer_count);
    let mut x = 0.0;
    for layer in &layers {
        left.push(x);
        let widest = layer.iter().filter_map(|item| blocks.get(*item)).map(|block| block.width).fold(0.0, f64::max);
        x += widest + LAYER_GAP;
    }
    let corners: Vec<_> = (0..blocks.len()).map(|index| (left[layers_of[index]], items[index].y - top)).collect();
    let route = |wire: &Wire| {
        let (x, y) = corners[wire.from];
        let mut points = vec![(x + blocks[wire.from].width, y + wire.from_y)];
        let first = layers_of[wire.from] + 1;
        for (offset, bend) in bends[wire.from].iter().take(layers_of[wire.to] - first).enumerate() {
            points.push((left[first + offset], items[*bend].y - top));
            points.push((left.get(first + offset + 1).map_or(x, |next| next - LAYER_GAP), items[*bend].y - top));
        }
        let (x, y) = corners[wire.to];
        points.push((x, y + wire.to_y));
        points
    };
    let height = items.iter().map(|item| item.y + item.height - top).fold(0.0, f64::max);
    Layout { routes: wires.iter().map(route).collect(), corners, width: (x - LAYER_GAP).max(0.0), height }
}

/// Every block one layer after the last one that it needs; what needs nothing directly before what needs it.
fn assign_layers(blocks: usize, wires: &[Wire]) -> Vec<usize> {
    let mut incoming: Vec<Vec<usize>> = vec![Vec::new(); blocks];
    let mut outgoing: Vec<Vec<usize>> = vec![Vec::new(); blocks];
    for wire in wires {
        incoming[wire.to].push(wire.from);
        outgoing[wire.from].push(wire.to);
    }
    let mut layers = vec![0usize; blocks];
    for block in 0..blocks {
        layers[block] = incoming[block].iter().map(|from| layers[*from] + 1).max().unwrap_or(0);
    }
    for block in 0..blocks {
        if incoming[block].is_empty() {
            let next = outgoing[block].iter().map(|to| layers[*to]).min();
            layers[block] = next.map_or(0, |next| next.saturating_sub(1));
        }
    }
    layers
}

fn hang(items: &mut [Item], (from, from_y): (usize, f64), (to, to_y): (usize, f64)) {
    items[from].after.push((to, from_y, to_y));
    items[to].before.push((from, from_y, to_y));
}

/// Sorts every layer by the mean position of its items' neighbours, to and fro.
fn order(layers: &mut [Vec<usize>], items: &mut [Item]) {
    let stack = |layer: &[usize], items: &mut [Item]| {
        let mut y = 0.0;
        for item in layer {
            items[*item].y = y;
            y += items[*item].height + BLOCK_GAP;
        }
    };
    for layer in &*layers {
        stack(layer, items);
    }
    for round in 0..ROUNDS {
        let forwards = round % 2 == 0;
        for position in 0..layers.len() {
            let layer = if forwards { position } else { layers.len() - 1 - position };
            let mut keyed: Vec<(f64, usize)> = layers[layer]
                .iter()
                .map(|item| (pull(items, *item, forwards, !forwards) + items[*item].height / 2.0, *item))
                .collect();
            keyed.sort_by(|one, other| one.0.total_cmp(&other.0));
            layers[layer] = keyed.into_iter().map(|(_, item)| item).collect();
            stack(&layers[layer], items);
        }
    }
}

/// Moves items to where their neighbours pull them, as far as their order and size allow.
fn settle(layers: &[Vec<usize>], items: &mut [Item]) {
    for round in 0..ROUNDS {
        let forwards = round % 2 == 0;
        for position in 0..layers.len() {
            let layer = &layers[if forwards { position } else { layers.len() - 1 - position }];
            let last = round + 1 == ROUNDS;
            let wanted: Vec<f64> =
                layer.iter().map(|item| pull(items, *item, forwards || last, !forwards || last)).collect();
            place(layer, &wanted, items);
        }
    }
}

/// Puts the items of a layer as near to where they want to be as they fit: items that would overlap move together, around
/// the mean of their wishes.
fn place(layer: &[usize], wanted: &[f64], items: &mut [Item]) {
    /// Items that touch: how many, their height, and the sum of where the first would have to be for each one's wish.
    struct Cluster {
        count: usize,
        height: f64,
        wishes: f64,
    }
    impl Cluster {
        fn top(&self) -> f64 {
            self.wishes / self.count as f64
        }
    }
    let mut clusters: Vec<Cluster> = Vec::with_capacity(layer.len());
    for (item, wish) in layer.iter().zip(wanted) {
        let mut cluster = Cluster { count: 1, height: items[*item].height + BLOCK_GAP, wishes: *wish };
        while let Some(previous) = clusters.pop_if(|previous| previous.top() + previous.height > cluster.top()) {
            cluster = Cluster {
                count: previous.count + cluster.count,
                wishes: previous.wishes + cluster.wishes - previous.height * cluster.count as f64,
                height: previous.height + cluster.height,
            };
        }
        clusters.push(cluster);
    }
    let mut rest = layer.iter();
    for cluster in clusters {
        let mut y = cluster.top();
        for item in rest.by_ref().take(cluster.count) {
            items[*item].y = y;
            y += items[*item].height + BLOCK_GAP;
        }
    }
}

/// Where an item's neighbours on the named sides would have its top; its own place if it has none there.
fn pull(items: &[Item], item: usize, before: bool, after: bool) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    if before {
        for (other, other_y, own_y) in &items[item].before {
            sum += items[*other].y + other_y - own_y;
            count += 1.0;
        }
    }
    if after {
        for (other, own_y, other_y) in &items[item].after {
            sum += items[*other].y + other_y - own_y;
            count += 1.0;
        }
    }
    if count == 0.0 { items[item].y } else { sum / count }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Block = Block { width: 100.0, height: 40.0 };

    fn wire(from: usize, to: usize) -> Wire {
        Wire { from, from_y: 20.0, to, to_y: 20.0 }
    }

    fn overlap(layout: &Layout, blocks: &[Block]) -> bool {
        let boxes: Vec<_> = layout.corners.iter().zip(blocks).collect();
        boxes.iter().enumerate().any(|(index, ((x, y), block))| {
            boxes[..index].iter().any(|((other_x, other_y), other)| {
                *x < other_x + other.width
                    && *other_x < x + block.width
                    && *y < other_y + other.height
                    && *other_y < y + block.height
            })
        })
    }

    #[test]
    fn what_is_needed_stands_left_of_what_needs_it() {
        let wires = [wire(0, 1), wire(1, 2), wire(0, 2), wire(3, 4)];
        let blocks = [BLOCK; 5];
        let layout = layout(&blocks, &wires);
        for (wire, route) in wires.iter().zip(&layout.routes) {
            assert!(layout.corners[wire.from].0 + 100.0 < layout.corners[wire.to].0);
            assert!(route.is_sorted_by(|one, next| one.0 < next.0), "{route:?}");
        }
        assert!(!overlap(&layout, &blocks));
    }

    #[test]
    fn blocks_of_any_size_never_overlap() {
        let blocks: Vec<_> = (0..60)
            .map(|index| Block { width: 50.0 + f64::from(index % 7), height: f64::from(10 + index * 37 % 90) })
            .collect();
        let wires: Vec<_> =
            (1..60).flat_map(|to| [wire(to / 2, to), wire(to / 5, to)]).filter(|wire| wire.from < wire.to).collect();
        let layout = layout(&blocks, &wires);
        assert!(!overlap(&layout, &blocks));
        for ((x, y), block) in layout.corners.iter().zip(&blocks) {
            assert!(*x >= 0.0 && *y >= 0.0 && x + block.width <= layout.width && y + block.height <= layout.height);
        }
    }

    #[test]
    fn a_chain_is_a_straight_line() {
        let layout = layout(&[BLOCK; 4], &[wire(0, 1), wire(1, 2), wire(2, 3)]);
        assert!(layout.corners.iter().all(|(_, y)| *y == layout.corners[0].1));
    }

    #[test]
    fn nothing_takes_no_room() {
        let layout = layout(&[], &[]);
        assert_eq!((layout.width, layout.height), (0.0, 0.0));
    }
}
