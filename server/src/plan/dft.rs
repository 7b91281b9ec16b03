//! Inverse discrete Fourier transform of any length in one fixed order of scalar f64 operations.
//!
//! Rank maps decide which pixel shows which image, so the last bit of a transform matters: automatic planners choose
//! their algorithm by machine and are not used. Lengths with small prime factors take a mixed-radix recursion, others
//! Bluestein's chirp (1970), which turns them into a convolution of a power of two. Nothing is normalised.

use std::ops::{Add, Mul, Sub};

/// Largest prime that is transformed by its definition.
const LARGEST_RADIX: usize = 31;

/// A complex number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Complex {
    /// Real part.
    pub re: f64,
    /// Imaginary part.
    pub im: f64,
}

impl Complex {
    /// The complex conjugate.
    pub fn conjugate(self) -> Complex {
        Complex { re: self.re, im: -self.im }
    }

    /// `i` times this number.
    pub fn turned(self) -> Complex {
        Complex { re: -self.im, im: self.re }
    }
}

impl Add for Complex {
    type Output = Complex;
    fn add(self, o: Complex) -> Complex {
        Complex { re: self.re + o.re, im: self.im + o.im }
    }
}

impl Sub for Complex {
    type Output = Complex;
    fn sub(self, o: Complex) -> Complex {
        Complex { re: self.re - o.re, im: self.im - o.im }
    }
}

impl Mul for Complex {
    type Output = Complex;
    fn mul(self, o: Complex) -> Complex {
        Complex { re: self.re * o.re - self.im * o.im, im: self.re * o.im + self.im * o.re }
    }
}

/// Prepared transforms of one length: `y[j] = sum_k x[k] exp(2 pi i j k / n)`.
#[derive(Debug)]
pub struct Dft {
    n: usize,
    /// `exp(2 pi i k / n)`.
    roots: Vec<Complex>,
    /// Prime factors in ascending order; empty for Bluestein and for n = 1.
    factors: Vec<usize>,
    chirp: Option<Box<Chirp>>,
}

/// Bluestein's convolution.
#[derive(Debug)]
struct Chirp {
    /// `exp(pi i k^2 / n)`.
    chirp: Vec<Complex>,
    /// Transform of the conjugate chirp, laid around the circle.
    kernel: Vec<Complex>,
    inner: Dft,
}

impl Dft {
    /// Prepares length `n` >= 1.
    pub fn new(n: usize) -> Dft {
        let roots = (0..n).map(|k| root(k, n)).collect();
        let mut factors = Vec::new();
        let (mut rest, mut p) = (n, 2);
        while rest > 1 {
            if p * p > rest {
                p = rest;
            }
            while rest.is_multiple_of(p) {
                factors.push(p);
                rest /= p;
            }
            p += 1;
        }
        let chirp = factors.last().is_some_and(|p| *p > LARGEST_RADIX).then(|| {
            factors.clear();
            Box::new(Chirp::new(n))
        });
        Dft { n, roots, factors, chirp }
    }

    /// Transforms the `n` numbers of `x` in place; `scratch` keeps memory between calls.
    pub fn run(&self, x: &mut [Complex], scratch: &mut Vec<Complex>) {
        match &self.chirp {
            Some(chirp) => chirp.run(x, scratch),
            None => {
                scratch.clear();
                scratch.extend_from_slice(x);
                self.split(scratch, 1, x, &self.factors);
            }
        }
    }

    /// `out` = transform of every `stride`-th number of `x`, decimation in time.
    fn split(&self, x: &[Complex], stride: usize, out: &mut [Complex], factors: &[usize]) {
        let Some((&radix, factors)) = factors.split_first() else {
            out[0] = x[0];
            return;
        };
        let part = out.len() / radix;
        for (r, out) in out.chunks_exact_mut(part).enumerate() {
            self.split(&x[r * stride..], stride * radix, out, factors);
        }
        if radix == 2 {
            let (even, odd) = out.split_at_mut(part);
            for (k, (a, b)) in even.iter_mut().zip(odd).enumerate() {
                let turned = *b * self.roots[k * stride];
                (*a, *b) = (*a + turned, *a - turned);
            }
            return;
        }
        let mut column = [Complex::default(); LARGEST_RADIX];
        for k in 0..part {
            for r in 0..radix {
                column[r] = out[r * part + k] * self.roots[r * k * stride];
            }
            for q in 0..radix {
                let term = |sum, r: usize| sum + column[r] * self.roots[(q * r % radix) * (self.n / radix)];
                out[q * part + k] = (1..radix).fold(column[0], term);
            }
        }
    }
}

impl Chirp {
    fn new(n: usize) -> Chirp {
        let size = (2 * n - 1).next_power_of_two();
        let inner = Dft::new(size);
        // k^2 is reduced first: the sine of a large angle loses digits.
        let chirp: Vec<Complex> = (0..n).map(|k| root(k * k % (2 * n), 2 * n)).collect();
        let mut kernel = vec![Complex::default(); size];
        for (k, c) in chirp.iter().enumerate() {
            kernel[k] = c.conjugate();
            kernel[(size - k) % size] = c.conjugate();
        }
        inner.run(&mut kernel, &mut Vec::new());
        Chirp { chirp, kernel, inner }
    }

    /// `y[j] = c[j] sum_k (x[k] c[k]) conj(c[j - k])`, as `j k = (j^2 + k^2 - (j - k)^2) / 2`.
    fn run(&self, x: &mut [Complex], scratch: &mut Vec<Complex>) {
        let size = self.kernel.len();
        let mut work = vec![Complex::default(); size];
        for ((w, x), c) in work.iter_mut().zip(&*x).zip(&self.chirp) {
            *w = *x * *c;
        }
        self.inner.run(&mut work, scratch);
        // The way back is the conjugate of the way there, applied to the conjugate.
        for (w, k) in work.iter_mut().zip(&self.kernel) {
            *w = (*w * *k).conjugate();
        }
        self.inner.run(&mut work, scratch);
        let scale = 1.0 / size as f64;
        for ((x, w), c) in x.iter_mut().zip(&work).zip(&self.chirp) {
            let back = w.conjugate();
            *x = Complex { re: back.re * scale, im: back.im * scale } * *c;
        }
    }
}

/// `exp(2 pi i k / n)` for `k < n`.
fn root(k: usize, n: usize) -> Complex {
    let angle = 2.0 * std::f64::consts::PI * (k as f64 / n as f64);
    Complex { re: libm::cos(angle), im: libm::sin(angle) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_follows_the_definition() {
        // Powers, mixed radices, primes below and above the largest radix, products with such a prime.
        for n in (1..=40).chain([49, 62, 74, 97, 111, 128, 224, 341]) {
            let x: Vec<Complex> = (0..n)
                .map(|k| Complex { re: ((k * k + 3) % 17) as f64 - 8.0, im: ((k * 5 + 1) % 11) as f64 - 5.0 })
                .collect();
            let mut y = x.clone();
            Dft::new(n).run(&mut y, &mut Vec::new());
            for (j, y) in y.iter().enumerate() {
                let want = x
                    .iter()
                    .enumerate()
                    .fold(Complex::default(), |sum, (k, x)| sum + *x * root(j * k % n, n));
                let miss = (*y - want).re.abs() + (*y - want).im.abs();
                assert!(miss < 1e-11 * n as f64, "length {n} bin {j}: {y:?}, want {want:?}");
            }
        }
    }
}
