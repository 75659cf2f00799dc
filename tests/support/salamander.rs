//! A value that two keys accept: AES-GCM does not commit to its key.

use aes::cipher::{BlockCipherEncrypt, KeyInit as _};
use reseal::key::KeyMaterial;

/// Two blocks of ciphertext and a tag that AES-256-GCM accepts under both keys: the second block is solved for equal tags.
///
/// With H = E(0), the tag of two blocks without associated data is c₀·H³ + c₁·H² + lengths·H + E(nonce ‖ 1). Setting the tags of both
/// keys equal leaves one linear equation in c₁.
pub fn salamander(one: &KeyMaterial, other: &KeyMaterial) -> Vec<u8> {
    let nonce = [0x24; 12];
    let first_block = 0x0123_4567_89ab_cdef_u128;
    let bits = 256;
    let half = |key: &KeyMaterial| {
        let key = aes::Aes256::new_from_slice(key.expose()).unwrap();
        let encrypt = |block: u128| {
            let mut block = block.to_be_bytes().into();
            key.encrypt_block(&mut block);
            u128::from_be_bytes(block.into())
        };
        let mut counter = [0; 16];
        counter[..12].copy_from_slice(&nonce);
        counter[15] = 1;
        let h = encrypt(0);
        let h2 = times(h, h);
        // The tag without the second block, and what the second block is multiplied with.
        (
            times(first_block, times(h2, h)) ^ times(bits, h) ^ encrypt(u128::from_be_bytes(counter)),
            h2,
        )
    };
    let ((rest_one, factor_one), (rest_other, factor_other)) = (half(one), half(other));
    let second_block = times(rest_one ^ rest_other, inverse(factor_one ^ factor_other));
    let tag = rest_one ^ times(second_block, factor_one);
    [
        &nonce[..],
        &first_block.to_be_bytes(),
        &second_block.to_be_bytes(),
        &tag.to_be_bytes(),
    ]
    .concat()
}

/// Multiplication in GF(2^128) with GCM's order of bits (SP 800-38D section 6.3).
fn times(x: u128, mut v: u128) -> u128 {
    let mut z = 0;
    for bit in (0..128).rev() {
        if x >> bit & 1 == 1 {
            z ^= v;
        }
        v = (v >> 1) ^ if v & 1 == 1 { 0xe1 << 120 } else { 0 };
    }
    z
}

/// x^(2^128 - 2).
fn inverse(x: u128) -> u128 {
    let mut power = x;
    let mut product = 1 << 127;
    for _ in 1..128 {
        power = times(power, power);
        product = times(product, power);
    }
    product
}
