//! Room for new versions on the blocks of the old ones.
//!
//! An update whose new version finds room on its own block and changes no indexed column writes no index entry (a HOT update), and
//! index entries are two thirds of what an update costs. Tables come with full blocks. So a page is written in waves: each takes every
//! so manieth row of a block. The first wave has to move its rows to the end of the table; once it is committed and nobody can see
//! their old versions any more, these are pruned and the next wave's rows fit where they stood.

use std::collections::{HashMap, HashSet};

use crate::store::SetBatch;
use crate::store::page::{Page, Swaps};
use crate::store::waves::Waves;

/// Which blocks a wave tidies before it writes.
#[derive(Debug, Default)]
pub struct Tidy {
    blocks: HashSet<Block>,
    swaps: Vec<u32>,
}

impl Tidy {
    /// One swap of each block that the wave writes to, if a wave before may have left room on it.
    pub fn choose(&mut self, batch: &SetBatch<'_>) {
        self.blocks.clear();
        self.swaps.clear();
        if batch.wave.first {
            return;
        }
        for &swap in batch.wave.swaps {
            let block = block_of(batch.page, batch.swaps.row(swap as usize));
            if self.blocks.insert(block) {
                self.swaps.push(swap);
            }
        }
    }

    /// Those swaps.
    pub fn swaps(&self) -> &[u32] {
        &self.swaps
    }
}

/// Deals the rows of every block out over the waves, a share of each. Waves follow one another so closely that what one left may still
/// be seen by somebody when the next begins: a page is written in groups that take turns.
pub fn arrange(page: &Page, swaps: &Swaps, waves: &mut Waves) {
    let shares = (swaps.len() / WAVE_ROWS_MIN).min(SHARES);
    if shares < 2 {
        return waves.whole(swaps);
    }
    let groups = (swaps.len() / (shares * WAVE_ROWS_MIN)).min(GROUPS);
    let mut met: HashMap<Block, usize> = HashMap::new();
    let ranks: Vec<usize> = (0..swaps.len())
        .map(|swap| {
            let met = met.entry(block_of(page, swaps.row(swap))).or_default();
            *met += 1;
            *met - 1
        })
        .collect();
    // Rows that are strewn over the table share no blocks; those that come later find room by themselves.
    if swaps.len() < met.len() * ROWS_A_BLOCK_MIN {
        return waves.whole(swaps);
    }
    waves.arrange(swaps, shares * groups, |swap| {
        ranks[swap] % shares * groups + swap * groups / swaps.len()
    });
}

/// Number of a block of the table, as `tid` has it on the wire.
type Block = [u8; 4];

fn block_of(page: &Page, row: usize) -> Block {
    let [a, b, c, d, ..] = page.version(row).tid;
    [a, b, c, d]
}

/// The rows of a block are shared out over so many waves: the first share grows the table, three find their room. More shares prune
/// every block more often than that saves.
const SHARES: usize = 4;
/// Groups that take turns: between two waves to the same block there are so many less one to others.
const GROUPS: usize = 4;
/// A smaller wave costs more as a transaction than it saves.
const WAVE_ROWS_MIN: usize = 100;
/// Fewer rows of a page on a block leave no room worth waiting for.
const ROWS_A_BLOCK_MIN: usize = 2;
