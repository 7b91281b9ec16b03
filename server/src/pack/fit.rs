//! Best-fit-decreasing packing in O(n log L): rows of equal room on stacks, the fullest row that fits found in a tree
//! of 64-bit words.

use super::{Body, Document, Piece, cut};

/// Bits of a word of the tree.
const WORD: usize = 64;

/// Set of numbers below a bound that finds the least member at or above a number.
struct Set {
    /// From the leaves (one bit a number) to a single word; a bit says that a word below is not 0.
    levels: Vec<Vec<u64>>,
}

impl Set {
    fn new(bound: usize) -> Set {
        let mut levels = vec![vec![0u64; bound.div_ceil(WORD).max(1)]];
        while levels.last().is_some_and(|top| top.len() > 1) {
            let below = levels.last().map_or(0, Vec::len);
            levels.push(vec![0; below.div_ceil(WORD)]);
        }
        Set { levels }
    }

    fn insert(&mut self, mut at: usize) {
        for level in &mut self.levels {
            level[at / WORD] |= 1 << (at % WORD);
            at /= WORD;
        }
    }

    fn remove(&mut self, mut at: usize) {
        for level in &mut self.levels {
            level[at / WORD] &= !(1 << (at % WORD));
            if level[at / WORD] != 0 {
                return;
            }
            at /= WORD;
        }
    }

    /// The least member at or above `at`.
    fn from(&self, mut at: usize) -> Option<usize> {
        for height in 0..self.levels.len() {
            let word = self.levels[height].get(at / WORD)?;
            let rest = word & (u64::MAX << (at % WORD));
            if rest != 0 {
                let mut found = at / WORD * WORD + rest.trailing_zeros() as usize;
                for below in self.levels[..height].iter().rev() {
                    found = found * WORD + below[found].trailing_zeros() as usize;
                }
                return Some(found);
            }
            at = at / WORD + 1;
        }
        None
    }
}

/// Rows of `order`: full rows of long documents first, then what remains, longest first (equal ones in the given order),
/// each in the row with the least room that takes it; among those in the one that was used last.
pub(super) fn best_fit(order: &[Document], seq_len: u32) -> Body {
    let (mut pieces, mut rests): (Vec<Piece>, Vec<Piece>) = (Vec::new(), Vec::new());
    for piece in order.iter().flat_map(|d| cut(d, seq_len)) {
        if piece.tokens == seq_len { pieces.push(piece) } else { rests.push(piece) }
    }
    rests.sort_by_key(|piece| std::cmp::Reverse(piece.tokens));
    let (rows, of) = place(&rests, seq_len);
    let full = pieces.len();
    let mut starts: Vec<u64> = (0..=full as u64).collect();
    // Counting sort by row.
    let mut ends = vec![0u64; rows];
    of.iter().for_each(|row| ends[*row as usize] += 1);
    let mut at = full as u64;
    for end in &mut ends {
        let count = std::mem::replace(end, at);
        at += count;
        starts.push(at);
    }
    pieces.resize(full + rests.len(), Piece { position: 0, tokens: 0, from: 0 });
    for (piece, row) in rests.iter().zip(&of) {
        let next = &mut ends[*row as usize];
        pieces[*next as usize] = *piece;
        *next += 1;
    }
    Body::Pieces { pieces, starts }
}

/// Number of rows, and the row of each piece.
fn place(pieces: &[Piece], seq_len: u32) -> (usize, Vec<u32>) {
    let mut rooms = Set::new(seq_len as usize + 1);
    let mut stacks: std::collections::HashMap<u32, Vec<u32>> = std::collections::HashMap::new();
    let (mut rows, mut of) = (0u32, Vec::with_capacity(pieces.len()));
    for piece in pieces {
        let room = rooms.from(piece.tokens as usize).map(|room| room as u32);
        let stack = room.and_then(|room| stacks.get_mut(&room));
        let row = stack.and_then(|stack| {
            let row = stack.pop();
            if stack.is_empty() {
                rooms.remove(room.unwrap_or_default() as usize);
            }
            row
        });
        let (row, room) = match (row, room) {
            (Some(row), Some(room)) => (row, room),
            (Some(_), None) | (None, _) => {
                rows += 1;
                (rows - 1, seq_len)
            }
        };
        let rest = room - piece.tokens;
        if rest > 0 {
            stacks.entry(rest).or_default().push(row);
            rooms.insert(rest as usize);
        }
        of.push(row);
    }
    (rows as usize, of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_set_is_a_set(bound in 1usize..9000, ops in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u64>()), 0..200)) {
            let (mut set, mut plain) = (Set::new(bound), BTreeSet::new());
            for (insert, at, ask) in ops {
                let (at, ask) = (at as usize % bound, ask as usize % (bound + 2));
                if insert { set.insert(at); plain.insert(at); } else { set.remove(at); plain.remove(&at); }
                prop_assert_eq!(set.from(ask), plain.range(ask..).next().copied());
            }
        }

        #[test]
        fn each_piece_takes_the_fullest_row_that_fits(mut lengths in prop::collection::vec(1u32..50, 0..80)) {
            lengths.sort_by_key(|l| std::cmp::Reverse(*l));
            let pieces: Vec<Piece> = lengths.iter().map(|&tokens| Piece { position: 0, tokens, from: 0 }).collect();
            let (rows, of) = place(&pieces, 50);
            let mut room: Vec<u32> = Vec::new();
            for (piece, row) in pieces.iter().zip(of) {
                let best = room.iter().filter(|r| **r >= piece.tokens).min();
                match best {
                    Some(best) => prop_assert_eq!(room[row as usize], *best),
                    None => {
                        prop_assert_eq!(row as usize, room.len());
                        room.push(50);
                    }
                }
                room[row as usize] -= piece.tokens;
            }
            prop_assert_eq!(rows, room.len());
        }
    }
}
