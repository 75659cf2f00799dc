//! In which order the swaps of a page are written, and in how many transactions: a store may write a page in waves, so that the space of
//! the rows that one wave has left behind takes those of the next.

use super::page::Swaps;

/// A partition of the swaps of a page, reused from page to page.
#[derive(Debug, Default)]
pub struct Waves {
    order: Vec<u32>,
    ends: Vec<usize>,
}

/// The swaps of one transaction.
#[derive(Debug, Clone, Copy)]
pub struct Wave<'a> {
    /// Their numbers among the swaps of the page.
    pub swaps: &'a [u32],
    /// Whether no wave of the page went before.
    pub first: bool,
    /// Whether no wave follows: what is to be recorded of the page commits with this one.
    pub last: bool,
}

impl Waves {
    /// All swaps in one transaction, in order.
    pub fn whole(&mut self, swaps: &Swaps) {
        self.arrange(swaps, 1, |_| 0);
    }

    /// So many waves; `wave_of` says which of them takes a swap. Within a wave the swaps keep their order, and a wave that takes none is
    /// left out, unless all are empty.
    pub fn arrange(&mut self, swaps: &Swaps, waves: usize, mut wave_of: impl FnMut(usize) -> usize) {
        self.order.clear();
        self.ends.clear();
        self.ends.resize(waves.max(1) + 1, 0);
        let last = waves.max(1) - 1;
        let taken: Vec<usize> = (0..swaps.len()).map(|swap| wave_of(swap).min(last)).collect();
        for &wave in &taken {
            self.ends[wave + 1] += 1;
        }
        for wave in 0..=last {
            self.ends[wave + 1] += self.ends[wave];
        }
        self.order.resize(swaps.len(), 0);
        for (swap, &wave) in taken.iter().enumerate() {
            self.order[self.ends[wave]] = swap as u32;
            self.ends[wave] += 1;
        }
        self.ends.truncate(last + 1);
        self.ends.dedup();
        if self.ends.len() > 1 && self.ends[0] == 0 {
            self.ends.remove(0);
        }
    }

    /// The waves, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Wave<'_>> {
        let count = self.ends.len();
        (0..count).map(move |wave| Wave {
            swaps: &self.order[wave.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[wave]],
            first: wave == 0,
            last: wave + 1 == count,
        })
    }
}
