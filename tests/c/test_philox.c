/* Philox4x32-10 against the known answers of Random123 (tests/kat_vectors), and the counter's layout. */
#include "formulas/philox.h"
#include "test.h"

static void check_words(dc_words got, uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3)
{
    CHECK(got.w0 == w0 && got.w1 == w1 && got.w2 == w2 && got.w3 == w3);
}

static void test_known_answers(void)
{
    const dc_words zeros = {0, 0, 0, 0}, ones = {~0u, ~0u, ~0u, ~0u};
    const dc_words pi = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
    check_words(dc_philox4x32(zeros, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
    check_words(dc_philox4x32(ones, ~0u, ~0u), 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
    check_words(dc_philox4x32(pi, 0xa4093822, 0x299f31d0), 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1);
}

/* Every argument sits in the word that the file format says, and carries into its neighbour where it has 64 bits. */
static void test_layout(void)
{
    const dc_words counter = {0x89abcdef, 7, 11, DC_STREAM + 3};
    dc_words wanted = dc_philox4x32(counter, 0x55667788, 0x11223344);
    dc_words got = dc_noise_words(0x1122334455667788u, 11, 7, 0x389abcdefu);
    check_words(got, wanted.w0, wanted.w1, wanted.w2, wanted.w3);
    CHECK(DC_STREAM == 0xdc010000u); /* version 1 */
}

int main(void)
{
    test_known_answers();
    test_layout();
    return test_done();
}
