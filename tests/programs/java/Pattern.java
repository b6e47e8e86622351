/** The bytes that streams carry: each is a function of the stream and of its position. */
final class Pattern {
    static final int MULTIPLIER = 0x9e3779b1;

    static byte at(int seed, long position) {
        long value = (position + seed * 7919L) * MULTIPLIER;
        return (byte) (value >>> 24);
    }

    static byte[] bytes(int seed, long position, int count) {
        byte[] bytes = new byte[count];
        for (int index = 0; index < count; index++) {
            bytes[index] = at(seed, position + index);
        }
        return bytes;
    }

    static void check(int seed, long position, byte[] bytes, int count) {
        for (int index = 0; index < count; index++) {
            if (bytes[index] != at(seed, position + index)) {
                throw new AssertionError("stream " + seed + " is wrong at " + (position + index));
            }
        }
    }
}
