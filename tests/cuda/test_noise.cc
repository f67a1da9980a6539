/* cuda/noise.cu against the CPU's noise, bit for bit: any slice, any alignment, any key. */
#include "device.h"

static const int64_t COUNTS[] = {1, 2, 3, 4, 5, 31, 33, 255, 257, 1023, 1024, 1025, 4099};
static const int64_t FIRSTS[] = {0, 1, 2, 3, 4, 1021, (1LL << 34) - 6, (1LL << 50) - 5000};
static const dc_noise_key KEYS[] = {{0, 0, 0}, {UINT64_MAX, UINT32_MAX, UINT32_MAX}, {1ull << 32 | 7, 5, 999}};

static void check_slice(device *d, dc_noise_key key, int64_t first, int64_t count, int64_t offset)
{
    std::vector<float> wanted((size_t)count);
    float *eps = device_new<float>(d, count, offset);
    d->host->noise(d->host, wanted.data(), key, first, count);
    d->backend->noise(d->backend, eps, key, first, count);
    device_finish(d);
    CHECK(memcmp(eps, wanted.data(), (size_t)count * sizeof(float)) == 0);
    device_clear(d);
}

/* Past 2^31 elements: the ends of the slice are looked at, the rest is not made. */
static void check_long(device *d)
{
    enum { END = 512 };
    const int64_t count = (1LL << 31) + 1003;
    float wanted[END];
    float *eps = device_new<float>(d, count);
    shim_set_ends(2);
    d->backend->noise(d->backend, eps, KEYS[2], 8, count);
    device_finish(d);
    d->host->noise(d->host, wanted, KEYS[2], 8, END);
    CHECK(memcmp(eps, wanted, sizeof wanted) == 0);
    d->host->noise(d->host, wanted, KEYS[2], 8 + count - END, END);
    CHECK(memcmp(eps + count - END, wanted, sizeof wanted) == 0);
    shim_set_ends(0);
    device_clear(d);
}

int main()
{
    device d = device_open(1, 1);
    int i = 0;
    for (int64_t first : FIRSTS)
        for (int64_t count : COUNTS)
            for (const dc_noise_key &key : KEYS) {
                shim_set_order((shim_order)(i % 3));
                check_slice(&d, key, first, count, i++ % 4);
            }
    d.backend->noise(d.backend, NULL, KEYS[0], 0, 0);
    device_finish(&d);
    if (shim_has_room(3LL << 32))
        check_long(&d);
    device_close(&d);
    return device_done();
}
