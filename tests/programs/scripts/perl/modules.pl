use List::Util qw(sum); use POSIX qw(floor); use Digest::MD5 qw(md5_hex); print sum(1..100), floor(-1.5), md5_hex("x" x 1000), "\n"
