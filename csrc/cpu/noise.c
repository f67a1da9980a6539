#include "cpu/noise.h"

#include <string.h>

#include "cpu/cpu.h"
#include "formulas/gaussian.h"
#include "formulas/philox.h"

#if DC_X86
#include <immintrin.h>
#endif

/* Blocks are made in steps of one AVX-512 register: BLOCKS is a multiple of STEP. */
enum { BLOCKS = DC_TILE / 4, STEP = 16 };

/* The words of a tile's blocks, and Philox's ten keys. */
typedef struct tile_words {
    uint32_t w[4][BLOCKS];
} tile_words;

typedef struct round_keys {
    uint32_t key0[DC_PHILOX_ROUNDS], key1[DC_PHILOX_ROUNDS];
} round_keys;

static inline round_keys round_keys_of(uint64_t seed)
{
    round_keys keys;
    for (uint32_t r = 0; r < DC_PHILOX_ROUNDS; r++) {
        keys.key0[r] = (uint32_t)seed + r * DC_PHILOX_BUMP0;
        keys.key1[r] = (uint32_t)(seed >> 32) + r * DC_PHILOX_BUMP1;
    }
    return keys;
}

/* ------------------------------------------------------------------------------------------------------------ words */

/* Words of blocks first .. first + n - 1, n a multiple of STEP.  A word lives in a 64-bit lane, where Philox's products
 * are formed; what stands in a lane's upper half is ignored.  Two states at a time hide the latency of the products. */
static inline void words_scalar(tile_words *words, dc_noise_key key, uint64_t first, int n)
{
    for (int i = 0; i < n; i++) {
        dc_words block = dc_noise_words(key.seed, key.noise_index, key.timestep, first + (uint64_t)i);
        words->w[0][i] = block.w0;
        words->w[1][i] = block.w1;
        words->w[2][i] = block.w2;
        words->w[3][i] = block.w3;
    }
}

#if DC_X86

typedef struct state_avx2 {
    __m256i w0, w1, w2, w3;
} state_avx2;

DC_TARGET_AVX2 DC_INLINE state_avx2 start_avx2(dc_noise_key key, __m256i block)
{
    state_avx2 s = {block, _mm256_set1_epi64x(key.timestep), _mm256_set1_epi64x(key.noise_index),
                    _mm256_add_epi64(_mm256_srli_epi64(block, 32), _mm256_set1_epi64x(DC_STREAM))};
    return s;
}

DC_TARGET_AVX2 DC_INLINE state_avx2 round_avx2(state_avx2 s, __m256i key0, __m256i key1)
{
    __m256i product0 = _mm256_mul_epu32(s.w0, _mm256_set1_epi64x(DC_PHILOX_M0));
    __m256i product1 = _mm256_mul_epu32(s.w2, _mm256_set1_epi64x(DC_PHILOX_M1));
    state_avx2 next = {_mm256_xor_si256(_mm256_srli_epi64(product1, 32), _mm256_xor_si256(s.w1, key0)), product1,
                       _mm256_xor_si256(_mm256_srli_epi64(product0, 32), _mm256_xor_si256(s.w3, key1)), product0};
    return next;
}

/* Lower halves of a's and b's lanes: a0 a1 b0 b1 a2 a3 b2 b3, so that blocks dealt out like this come back in order. */
DC_TARGET_AVX2 DC_INLINE void pack_avx2(uint32_t *out, __m256i a, __m256i b)
{
    _mm256_storeu_ps((float *)out, _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88));
}

DC_TARGET_AVX2 static inline void words_avx2(tile_words *words, dc_noise_key key, uint64_t first, int n)
{
    const round_keys keys = round_keys_of(key.seed);
    for (int i = 0; i < n; i += 8) {
        __m256i base = _mm256_set1_epi64x((int64_t)(first + (uint64_t)i));
        state_avx2 a = start_avx2(key, _mm256_add_epi64(base, _mm256_setr_epi64x(0, 1, 4, 5)));
        state_avx2 b = start_avx2(key, _mm256_add_epi64(base, _mm256_setr_epi64x(2, 3, 6, 7)));
        for (int r = 0; r < DC_PHILOX_ROUNDS; r++) {
            __m256i key0 = _mm256_set1_epi64x(keys.key0[r]), key1 = _mm256_set1_epi64x(keys.key1[r]);
            a = round_avx2(a, key0, key1);
            b = round_avx2(b, key0, key1);
        }
        pack_avx2(&words->w[0][i], a.w0, b.w0);
        pack_avx2(&words->w[1][i], a.w1, b.w1);
        pack_avx2(&words->w[2][i], a.w2, b.w2);
        pack_avx2(&words->w[3][i], a.w3, b.w3);
    }
}

typedef struct state_avx512 {
    __m512i w0, w1, w2, w3;
} state_avx512;

DC_TARGET_AVX512 DC_INLINE state_avx512 start_avx512(dc_noise_key key, __m512i block)
{
    state_avx512 s = {block, _mm512_set1_epi64(key.timestep), _mm512_set1_epi64(key.noise_index),
                      _mm512_add_epi64(_mm512_srli_epi64(block, 32), _mm512_set1_epi64(DC_STREAM))};
    return s;
}

DC_TARGET_AVX512 DC_INLINE state_avx512 round_avx512(state_avx512 s, __m512i key0, __m512i key1)
{
    enum { XOR3 = 0x96 }; /* truth table of a ^ b ^ c */
    __m512i product0 = _mm512_mul_epu32(s.w0, _mm512_set1_epi64(DC_PHILOX_M0));
    __m512i product1 = _mm512_mul_epu32(s.w2, _mm512_set1_epi64(DC_PHILOX_M1));
    state_avx512 next = {_mm512_ternarylogic_epi64(_mm512_srli_epi64(product1, 32), s.w1, key0, XOR3), product1,
                         _mm512_ternarylogic_epi64(_mm512_srli_epi64(product0, 32), s.w3, key1, XOR3), product0};
    return next;
}

DC_TARGET_AVX512 DC_INLINE void pack_avx512(uint32_t *out, __m512i a, __m512i b)
{
    _mm512_storeu_ps(out, _mm512_shuffle_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), 0x88));
}

DC_TARGET_AVX512 static inline void words_avx512(tile_words *words, dc_noise_key key, uint64_t first, int n)
{
    const round_keys keys = round_keys_of(key.seed);
    for (int i = 0; i < n; i += 16) {
        __m512i base = _mm512_set1_epi64((int64_t)(first + (uint64_t)i));
        state_avx512 a = start_avx512(key, _mm512_add_epi64(base, _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13)));
        state_avx512 b = start_avx512(key, _mm512_add_epi64(base, _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15)));
        for (int r = 0; r < DC_PHILOX_ROUNDS; r++) {
            __m512i key0 = _mm512_set1_epi64(keys.key0[r]), key1 = _mm512_set1_epi64(keys.key1[r]);
            a = round_avx512(a, key0, key1);
            b = round_avx512(b, key0, key1);
        }
        pack_avx512(&words->w[0][i], a.w0, b.w0);
        pack_avx512(&words->w[1][i], a.w1, b.w1);
        pack_avx512(&words->w[2][i], a.w2, b.w2);
        pack_avx512(&words->w[3][i], a.w3, b.w3);
    }
}

#endif

/* ---------------------------------------------------------------------------------------------------------- normals */

/* eps (4 * n_blocks,) from the words of n_blocks rounded up to STEP; plain loops that the compiler vectorises. */
DC_INLINE void normals(float *restrict eps, const tile_words *words, int n_blocks)
{
    float z[4][BLOCKS];
    int n = (n_blocks + STEP - 1) / STEP * STEP;
    for (int i = 0; i < n; i++)
        dc_gaussian_pair(&z[0][i], &z[1][i], words->w[0][i], words->w[1][i]);
    for (int i = 0; i < n; i++)
        dc_gaussian_pair(&z[2][i], &z[3][i], words->w[2][i], words->w[3][i]);
    for (int i = 0; i < n_blocks; i++)
        for (int j = 0; j < 4; j++)
            eps[4 * i + j] = z[j][i];
}

static void noise_blocks_scalar(float *eps, dc_noise_key key, uint64_t first_block, int n_blocks)
{
    tile_words words;
    words_scalar(&words, key, first_block, (n_blocks + STEP - 1) / STEP * STEP);
    normals(eps, &words, n_blocks);
}

#if DC_X86

DC_TARGET_AVX2 static void noise_blocks_avx2(float *eps, dc_noise_key key, uint64_t first_block, int n_blocks)
{
    tile_words words;
    words_avx2(&words, key, first_block, (n_blocks + STEP - 1) / STEP * STEP);
    normals(eps, &words, n_blocks);
}

DC_TARGET_AVX512 static void noise_blocks_avx512(float *eps, dc_noise_key key, uint64_t first_block, int n_blocks)
{
    tile_words words;
    words_avx512(&words, key, first_block, (n_blocks + STEP - 1) / STEP * STEP);
    normals(eps, &words, n_blocks);
}

dc_noise_blocks_fn dc_noise_blocks(dc_simd simd)
{
    return simd == DC_SIMD_AVX512 ? noise_blocks_avx512 : simd == DC_SIMD_AVX2 ? noise_blocks_avx2 : noise_blocks_scalar;
}

#else

dc_noise_blocks_fn dc_noise_blocks(dc_simd simd)
{
    (void)simd;
    return noise_blocks_scalar;
}

#endif

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

/* --------------------------------------------------------------------------------------------------------- operation */

typedef struct noise_task {
    const dc_cpu *cpu;
    float *eps;
    dc_noise_key key;
    int64_t first, count, share; /* elements a task */
} noise_task;

static void noise_share(void *argument, int64_t index)
{
    const noise_task *task = argument;
    int64_t begin = index * task->share, left = task->count - begin;
    dc_noise_fill(task->cpu->noise_blocks, task->eps + begin, task->key, task->first + begin,
                  left < task->share ? left : task->share);
}

void dc_noise_cpu(const dc_backend *self, float *eps, dc_noise_key key, int64_t first, int64_t count)
{
    noise_task task = {self->context, eps, key, first, count, count};
    if (count < DC_PARALLEL_MIN) {
        dc_noise_fill(task.cpu->noise_blocks, eps, key, first, count);
        return;
    }
    int64_t tiles = (count + DC_TILE - 1) / DC_TILE;
    task.share = (tiles + self->n_threads - 1) / self->n_threads * DC_TILE;
    dc_parallel_cpu(self, noise_share, &task, (count + task.share - 1) / task.share);
}

typedef struct groups_task {
    const dc_cpu *cpu;
    float *eps;
    const dc_group *groups;
    int64_t n_elem;
} groups_task;

static void noise_group(void *argument, int64_t index)
{
    const groups_task *task = argument;
    dc_noise_fill(task->cpu->noise_blocks, task->eps + index * task->n_elem, task->groups[index].key, 0, task->n_elem);
}

void dc_noise_of_groups_cpu(const dc_backend *self, float *eps, const dc_group *groups, int64_t n_groups, int64_t n_elem)
{
    groups_task task = {self->context, eps, groups, n_elem};
    if (n_groups * n_elem >= DC_PARALLEL_MIN) {
        dc_parallel_cpu(self, noise_group, &task, n_groups);
        return;
    }
    for (int64_t g = 0; g < n_groups; g++)
        noise_group(&task, g);
}
