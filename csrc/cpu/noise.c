#include "cpu/noise.h"

#include <string.h>

#include "formulas/gaussian.h"
#include "formulas/philox.h"

DC_INLINE void noise_blocks(float *eps, dc_noise_key key, uint64_t first_block, int n_blocks)
{
    for (int i = 0; i < n_blocks; i++) {
        dc_words words = dc_noise_words(key.seed, key.noise_index, key.timestep, first_block + (uint64_t)i);
        dc_gaussian_pair(&eps[4 * i], &eps[4 * i + 1], words.w0, words.w1);
        dc_gaussian_pair(&eps[4 * i + 2], &eps[4 * i + 3], words.w2, words.w3);
    }
}

static void noise_blocks_scalar(float *eps, dc_noise_key key, uint64_t first_block, int n_blocks)
{
    noise_blocks(eps, key, first_block, n_blocks);
}

DC_TARGET_AVX2 static void noise_blocks_avx2(float *eps, dc_noise_key key, uint64_t first_block, int n_blocks)
{
    noise_blocks(eps, key, first_block, n_blocks);
}

DC_TARGET_AVX512 static void noise_blocks_avx512(float *eps, dc_noise_key key, uint64_t first_block, int n_blocks)
{
    noise_blocks(eps, key, first_block, n_blocks);
}

dc_noise_blocks_fn dc_noise_blocks(dc_simd simd)
{
    return simd == DC_SIMD_AVX512 ? noise_blocks_avx512 : simd == DC_SIMD_AVX2 ? noise_blocks_avx2 : noise_blocks_scalar;
}

void dc_noise_fill(dc_noise_blocks_fn blocks, float *eps, dc_noise_key key, int64_t first, int64_t count)
{
    while (count > 0) {
        int skip = (int)(first % 4);
        uint64_t block = (uint64_t)first / 4;
        int64_t take = DC_TILE - skip < count ? DC_TILE - skip : count;
        if (skip == 0 && take % 4 == 0) {
            blocks(eps, key, block, (int)(take / 4));
        } else {
            float tile[DC_TILE];
            blocks(tile, key, block, (int)((skip + take + 3) / 4));
            memcpy(eps, tile + skip, (size_t)take * sizeof *eps);
        }
        eps += take;
        first += take;
        count -= take;
    }
}
