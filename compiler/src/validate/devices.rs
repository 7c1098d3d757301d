//! Orders a stage's devices: parents before children, otherwise as osbuild does, which walks the list repeatedly and
//! takes the devices whose parents it has.

use std::collections::HashMap;

use crate::description::Device;

/// Why devices cannot be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The device at this position has a parent that is not there.
    MissingParent(usize),
    /// The device at this position is, by way of its parents, its own parent.
    Cycle(usize),
}

/// How far a device is.
#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    /// On the way from a child to its parents.
    Open,
    /// In this round of osbuild's.
    Round(usize),
    /// It, or one of those above it, is faulty.
    Faulty,
}

/// The positions of the devices in the order in which they are opened.
///
/// # Errors
/// All faults: each missing parent, and one device of each cycle.
pub(crate) fn order(devices: &[Device]) -> Result<Vec<usize>, Vec<Fault>> {
    let positions: HashMap<&str, usize> =
        devices.iter().enumerate().map(|(position, device)| (device.name.as_str(), position)).collect();
    let mut states = vec![State::New; devices.len()];
    let mut faults = Vec::new();
    for start in 0..devices.len() {
        // From a device up to one whose state is known, then back down.
        let mut path = Vec::new();
        let mut at = Some(start);
        let mut above = State::Round(0);
        while let Some(position) = at {
            match states[position] {
                State::New => {}
                State::Open => {
                    faults.push(Fault::Cycle(position));
                    above = State::Faulty;
                    break;
                }
                known => {
                    above = known;
                    break;
                }
            }
            states[position] = State::Open;
            path.push(position);
            at = match &devices[position].parent {
                None => None,
                Some(parent) => {
                    let found = positions.get(parent.as_str()).copied();
                    if found.is_none() {
                        faults.push(Fault::MissingParent(position));
                        above = State::Faulty;
                    }
                    found
                }
            };
        }
        while let Some(position) = path.pop() {
            // A parent further down the list is taken only in the same round's past.
            states[position] = match (above, at) {
                (State::Round(round), Some(parent)) if parent > position => State::Round(round + 1),
                (state, _) => state,
            };
            (above, at) = (states[position], Some(position));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut order: Vec<usize> = (0..devices.len()).collect();
    order.sort_by_key(|position| match states[*position] {
        State::Round(round) => round,
        State::New | State::Open | State::Faulty => 0,
    });
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(devices: &[(&str, &str)]) -> Result<Vec<usize>, Vec<Fault>> {
        let devices: Vec<Device> = devices
            .iter()
            .map(|(name, parent)| Device {
                name: (*name).to_owned(),
                module: String::new(),
                parent: Some((*parent).to_owned()).filter(|parent| !parent.is_empty()),
                options: None,
            })
            .collect();
        order(&devices)
    }

    #[test]
    fn parents_come_first_and_the_rest_stays() {
        assert_eq!(ordered(&[("a", ""), ("b", "a"), ("c", "b")]), Ok(vec![0, 1, 2]));
        assert_eq!(ordered(&[("c", "b"), ("b", "a"), ("a", ""), ("d", "")]), Ok(vec![2, 3, 1, 0]));
        // osbuild: `x` and then `a` in the first round, `b` and its child `c` in the second.
        assert_eq!(ordered(&[("b", "a"), ("c", "b"), ("x", ""), ("a", "")]), Ok(vec![2, 3, 0, 1]));
    }

    #[test]
    fn faults_are_found_all_and_once() {
        assert_eq!(ordered(&[("a", "a")]), Err(vec![Fault::Cycle(0)]));
        assert_eq!(ordered(&[("a", "b"), ("b", "a"), ("c", "a")]), Err(vec![Fault::Cycle(0)]));
        assert_eq!(
            ordered(&[("a", "x"), ("b", "a"), ("c", "y"), ("d", "d")]),
            Err(vec![Fault::MissingParent(0), Fault::MissingParent(2), Fault::Cycle(3)])
        );
    }

    #[test]
    fn a_long_chain_takes_no_long_time() {
        let count = 100_000;
        let names: Vec<String> = (0..=count).map(|number| number.to_string()).collect();
        let chain: Vec<(&str, &str)> =
            (0..count).map(|n| (names[n].as_str(), if n + 1 == count { "" } else { names[n + 1].as_str() })).collect();
        assert_eq!(ordered(&chain), Ok((0..count).rev().collect()));
    }
}
