//! Python's `random.Random(seed).sample`, number for number: few-shot examples are drawn with it.

const SIZE: usize = 624;
const SHIFT: usize = 397;

/// The Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998), seeded as Python seeds it.
pub(super) struct PythonRandom {
    state: [u32; SIZE],
    next: usize,
}

impl PythonRandom {
    /// Python's `random.Random(seed)`: the array initialisation of the reference code with the seed as the only word.
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [0_u32; SIZE];
        state[0] = 19_650_218;
        for i in 1..SIZE {
            state[i] = mixed(state[i - 1]).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        let mut i = 1;
        for _ in 0..SIZE {
            state[i] = (state[i] ^ mixed(state[i - 1]).wrapping_mul(1_664_525)).wrapping_add(seed);
            i = advance(&mut state, i);
        }
        for _ in 1..SIZE {
            state[i] = (state[i] ^ mixed(state[i - 1]).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            i = advance(&mut state, i);
        }
        state[0] = 0x8000_0000;
        Self { state, next: SIZE }
    }

    fn twist(&mut self) {
        for i in 0..SIZE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % SIZE] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + SHIFT) % SIZE] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    fn word(&mut self) -> u32 {
        if self.next == SIZE {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number below `end`, by rejection.
    fn below(&mut self, end: usize) -> usize {
        let bits = usize::BITS - end.leading_zeros();
        loop {
            let drawn = (self.word() >> (32 - bits)) as usize;
            if drawn < end {
                return drawn;
            }
        }
    }

    /// `count` different indices below `population`, in the order drawn; `None` when there are not so many.
    pub(super) fn sample(&mut self, population: usize, count: usize) -> Option<Vec<usize>> {
        if count > population || population > u32::MAX as usize {
            return None;
        }
        // Python draws from a list while that is smaller than the set it would need otherwise.
        let mut set_size = 21;
        if count > 5 {
            set_size += std::iter::successors(Some(1), |size| Some(size * 4)).find(|&size| size >= 3 * count)?;
        }
        let mut drawn = Vec::with_capacity(count);
        if population <= set_size {
            let mut pool: Vec<usize> = (0..population).collect();
            for left in (population - count + 1..=population).rev() {
                drawn.push(pool.swap_remove(self.below(left)));
            }
            return Some(drawn);
        }
        while drawn.len() < count {
            let index = self.below(population);
            if !drawn.contains(&index) {
                drawn.push(index);
            }
        }
        Some(drawn)
    }
}

fn mixed(word: u32) -> u32 {
    word ^ (word >> 30)
}

/// The next index of the initialisation, which goes round without ever coming to 0.
fn advance(state: &mut [u32; SIZE], i: usize) -> usize {
    if i + 1 < SIZE {
        return i + 1;
    }
    state[0] = state[SIZE - 1];
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    // import random
    // r = random.Random(1234); print([r.getrandbits(32) for _ in range(2)])
    // for n, k in [(10, 3), ...]: print(random.Random(1234).sample(range(n), k))
    // r = random.Random(1234); print([r.sample(range(500), 6) for _ in range(300)][-1])
    #[test]
    fn samples_are_those_of_python() {
        let mut random = PythonRandom::new(1234);
        assert_eq!([random.word(), random.word()], [4_150_886_329, 3_342_196_574]);
        for (population, expected) in [
            (10, vec![7, 1, 0]),
            (100, vec![99, 56, 14, 0, 11]),
            (500, vec![494, 398, 225, 59, 3, 46]),
            (21, vec![14, 3, 0, 2, 1]),
            (22, vec![14, 3, 0, 2, 18]),
            (85, vec![56, 14, 0, 11, 74, 4, 10, 12, 45, 30, 2, 3, 80, 44, 61, 59, 19, 81, 23, 83, 1, 62, 84, 70, 15]),
            (100_000, vec![57_767, 15_315, 981, 11_880, 76_313]),
            (5, vec![3, 0, 4, 2, 1]),
        ] {
            assert_eq!(PythonRandom::new(1234).sample(population, expected.len()), Some(expected));
        }
        assert_eq!(PythonRandom::new(1234).sample(4, 5), None);
    }

    #[test]
    fn the_stream_goes_on_between_samples() {
        let mut random = PythonRandom::new(1234);
        let last = (0..300).map(|_| random.sample(500, 6)).last().flatten();
        assert_eq!(last, Some(vec![16, 106, 46, 49, 204, 415]));
    }
}
