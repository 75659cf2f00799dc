//! Each format at each size: open, seal, open and seal, and the kernel of a rotation (open, seal, open again, compare).
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::Rng;
use reseal::format::{Carried, Scratch, by_name, reseal, seeded};
use reseal::key::{KeyId, KeyMaterial};

const FORMATS: [&str; 7] = [
    "fernet",
    "tink",
    "tink-base64",
    "aes-gcm",
    "aes-gcm-base64",
    "aes-gcm-hex",
    "aes-gcm-nonce16-tag-first",
];
const PLACE: &[u8] = b"customers.email:4711";

fn formats(criterion: &mut Criterion) {
    let mut rng = seeded().unwrap();
    for name in FORMATS {
        let format = by_name(name).unwrap();
        let [old, new] = [1, 2].map(|id| format.cipher(&KeyMaterial::generate().unwrap(), Some(KeyId(id))).unwrap());
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        for size in [64, 256, 1024, 4096] {
            let mut plaintext = vec![0; size];
            rng.fill_bytes(&mut plaintext);
            let mut stored = Vec::new();
            old.seal(&plaintext, PLACE, Carried::default(), &mut rng, &mut stored);
            let mut opened = Vec::with_capacity(2 * stored.len());
            let mut sealed = Vec::with_capacity(2 * stored.len());
            let mut scratch = Scratch::new();
            group.bench_function(BenchmarkId::new("open", size), |bencher| {
                bencher.iter(|| {
                    opened.clear();
                    old.open(black_box(&stored), PLACE, &mut opened).unwrap()
                });
            });
            group.bench_function(BenchmarkId::new("seal", size), |bencher| {
                bencher.iter(|| {
                    sealed.clear();
                    new.seal(black_box(&plaintext), PLACE, Carried::default(), &mut rng, &mut sealed);
                });
            });
            group.bench_function(BenchmarkId::new("open+seal", size), |bencher| {
                bencher.iter(|| {
                    opened.clear();
                    sealed.clear();
                    let carried = old.open(black_box(&stored), PLACE, &mut opened).unwrap();
                    new.seal(&opened, PLACE, carried, &mut rng, &mut sealed);
                });
            });
            group.bench_function(BenchmarkId::new("reseal", size), |bencher| {
                bencher.iter(|| {
                    sealed.clear();
                    reseal(&*old, &*new, black_box(&stored), PLACE, &mut scratch, &mut rng, &mut sealed).unwrap()
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, formats);
criterion_main!(benches);
