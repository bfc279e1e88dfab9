//! Random choices from a seed, and shrinking.

use std::fmt::Debug;

/// The `SplitMix64` generator: small, and the same everywhere and for ever.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the limit, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// True in one of so many cases.
    pub(crate) fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// Between `least` and `most` pieces of the alphabet, joined.
    pub(crate) fn text(&mut self, alphabet: &[&str], least: usize, most: usize) -> String {
        let count = least + self.below(most - least + 1);
        (0..count).map(|_| self.pick(alphabet)).collect()
    }

    /// The text with up to `most` characters of the alphabet put in, taken out or exchanged.
    pub(crate) fn spoil(&mut self, text: &str, alphabet: &[&str], most: usize) -> String {
        let mut pieces: Vec<String> = text.chars().map(String::from).collect();
        for _ in 0..=self.below(most) {
            let at = self.below(pieces.len() + 1);
            match self.below(3) {
                0 => pieces.insert(at, self.pick(alphabet).to_owned()),
                1 if at < pieces.len() => self.pick(alphabet).clone_into(&mut pieces[at]),
                _ if at < pieces.len() => drop(pieces.remove(at)),
                _ => {}
            }
        }
        pieces.concat()
    }
}

/// A case that can be made smaller.
pub(crate) trait Case: Clone + Debug {
    /// Smaller cases that may still show the difference.
    fn smaller(&self) -> Vec<Self>;
}

impl Case for String {
    fn smaller(&self) -> Vec<Self> {
        let pieces: Vec<char> = self.chars().collect();
        let mut smaller = Vec::new();
        let mut length = pieces.len();
        while length > 0 {
            for start in (0..=pieces.len() - length).step_by(length) {
                smaller.push(pieces[..start].iter().chain(&pieces[start + length..]).collect());
            }
            length /= 2;
        }
        smaller
    }
}

impl<T: Case> Case for Vec<T> {
    fn smaller(&self) -> Vec<Self> {
        let mut smaller = Vec::new();
        for at in 0..self.len() {
            let mut without = self.clone();
            without.remove(at);
            smaller.push(without);
        }
        for (at, item) in self.iter().enumerate() {
            for less in item.smaller() {
                let mut with = self.clone();
                with[at] = less;
                smaller.push(with);
            }
        }
        smaller
    }
}

impl<A: Case, B: Case> Case for (A, B) {
    fn smaller(&self) -> Vec<Self> {
        let first = self.0.smaller().into_iter().map(|less| (less, self.1.clone()));
        first.chain(self.1.smaller().into_iter().map(|less| (self.0.clone(), less))).collect()
    }
}

/// The smallest case found that still differs, with the difference, as a message.
pub(crate) fn shrink<C: Case>(case: C, difference: String, mut differs: impl FnMut(&C) -> Option<String>) -> String {
    let (mut case, mut difference) = (case, difference);
    // each round makes the case smaller, so this ends; the bound is for cases that take long
    for _ in 0..500 {
        match case.smaller().into_iter().find_map(|less| differs(&less).map(|difference| (less, difference))) {
            Some(less) => (case, difference) = less,
            None => break,
        }
    }
    format!("{difference}\nsmallest case: {case:#?}")
}

/// Compares so many random cases; the first difference ends it.
pub(crate) fn compare_all<C: Case>(
    cases: u64,
    mut make: impl FnMut(u64) -> C,
    mut differs: impl FnMut(&C) -> Option<String>,
) -> Result<u64, String> {
    for index in 0..cases {
        let case = make(index);
        if let Some(difference) = differs(&case) {
            return Err(shrink(case, difference, differs));
        }
    }
    Ok(cases)
}
