//! Each format at each size: open, seal, open and seal, and the rotation's kernel (open, seal, open again, compare).
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::ChaCha20Rng;
use rand::{Rng, SeedableRng};
use reseal::format::{Carried, Fernet, Format};
use reseal::key::{KeyId, KeyMaterial};
use std::hint::black_box;

fn formats(c: &mut Criterion) {
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    for format in [&Fernet as &dyn Format] {
        let old = format.cipher(&KeyMaterial::generate().unwrap(), Some(KeyId(7))).unwrap();
        let new = format.cipher(&KeyMaterial::generate().unwrap(), Some(KeyId(8))).unwrap();
        for size in [64, 256, 1024, 4096] {
            let mut plaintext = vec![0; size];
            rng.fill_bytes(&mut plaintext);
            let mut stored = Vec::new();
            old.seal(&plaintext, b"customers.email:42", Carried::default(), &mut rng, &mut stored);
            let mut out = Vec::with_capacity(4 * stored.len());
            let mut plain = Vec::with_capacity(4 * stored.len());
            let mut group = c.benchmark_group(format.name());
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new("open", size), |b| {
                b.iter(|| {
                    out.clear();
                    old.open(black_box(&stored), b"customers.email:42", &mut out).unwrap()
                })
            });
            group.bench_function(BenchmarkId::new("seal", size), |b| {
                b.iter(|| {
                    out.clear();
                    new.seal(
                        black_box(&plaintext),
                        b"customers.email:42",
                        Carried::default(),
                        &mut rng,
                        &mut out,
                    );
                })
            });
            group.bench_function(BenchmarkId::new("open+seal", size), |b| {
                b.iter(|| {
                    out.clear();
                    plain.clear();
                    let carried = old.open(black_box(&stored), b"customers.email:42", &mut plain).unwrap();
                    new.seal(&plain, b"customers.email:42", carried, &mut rng, &mut out);
                })
            });
            group.finish();
        }
    }
}

criterion_group!(benches, formats);
criterion_main!(benches);
