/* What options of TCP, UDP and their addresses take, and TCP_INFO's states of a connection. */
#include "check.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static int GET(int s, int level, int option) {
  int got = 0;
  socklen_t n = sizeof got;
  return getsockopt(s, level, option, &got, &n) ? -1 : got;
}

/* Sockets of a kind, one for each number: what it takes, and what is there afterwards. */
static void taking(int family, int kind, int level, int option) {
  static const int numbers[] = {-1, 0, 1, 2, 5, 6, 87, 88, 100, 127, 128, 255, 256, 32767, 32768, 70000};
  for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    int s = socket(family, kind, 0);
    printf("     option %d of %d takes %d\n", option, level, numbers[i]);
    T(setsockopt(s, level, option, &numbers[i], 4));
    T(GET(s, level, option));
    close(s);
  }
}

static void numbers(void) {
  static const int ip[] = {IP_TOS, IP_TTL, IP_MTU_DISCOVER, IP_RECVERR, IP_PKTINFO, IP_FREEBIND, IP_MINTTL,
                           IP_BIND_ADDRESS_NO_PORT, IP_MULTICAST_LOOP};
  static const int tcp[] = {TCP_NODELAY, TCP_MAXSEG, TCP_CORK, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT,
                            TCP_LINGER2, TCP_DEFER_ACCEPT, TCP_USER_TIMEOUT, TCP_NOTSENT_LOWAT, 16, 27, 30, 36};
  static const int ip6[] = {IPV6_UNICAST_HOPS, IPV6_MULTICAST_HOPS, IPV6_RECVPKTINFO, IPV6_TCLASS, IPV6_V6ONLY};
  for (unsigned i = 0; i < sizeof ip / sizeof *ip; i++)
    taking(AF_INET, SOCK_STREAM, IPPROTO_IP, ip[i]), taking(AF_INET, SOCK_DGRAM, IPPROTO_IP, ip[i]);
  taking(AF_INET, SOCK_DGRAM, IPPROTO_IP, IP_MULTICAST_TTL);
  for (unsigned i = 0; i < sizeof tcp / sizeof *tcp; i++) taking(AF_INET, SOCK_STREAM, IPPROTO_TCP, tcp[i]);
  for (unsigned i = 0; i < sizeof ip6 / sizeof *ip6; i++)
    taking(AF_INET6, SOCK_STREAM, IPPROTO_IPV6, ip6[i]), taking(AF_INET6, SOCK_DGRAM, IPPROTO_IPV6, ip6[i]);
}

static void congestion(void) {
  int s = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0);
  char text[40] = "";
  socklen_t n = sizeof text;
  T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "nosuch", 6));
  T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno", 0));
  T(setsockopt(u, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
  T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno\0more", 9));
  T(getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, text, &n));
  printf("     %s, %d bytes\n", text, n);
  n = 2;
  T(getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, text, &n));
  T(n);
  T(getsockopt(u, IPPROTO_TCP, TCP_INFO, text, &n));
  close(s), close(u);
}

static struct tcp_info info_of(int s) {
  struct tcp_info info = {0};
  socklen_t n = sizeof info;
  T(getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &n));
  T(n);
  return info;
}

/* Wait for what the kernel brings over the loopback in its own time, then tell the state. */
static void state(int s, int expected) {
  struct tcp_info info;
  do {
    info = (struct tcp_info){0};
    socklen_t n = sizeof info;
    getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &n);
  } while (info.tcpi_state != expected && usleep(1000) == 0);
  printf("     state %d\n", info.tcpi_state);
}

static void states(void) {
  struct sockaddr_in a = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
  socklen_t n = sizeof a;
  int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0), s;
  state(c, TCP_CLOSE);
  T(info_of(c).tcpi_snd_mss);
  T(GET(c, IPPROTO_TCP, TCP_MAXSEG));
  bind(l, (void *)&a, sizeof a);
  getsockname(l, (void *)&a, &n);
  listen(l, 7);
  state(l, TCP_LISTEN);
  T(info_of(l).tcpi_sacked);
  T(connect(c, (void *)&a, sizeof a));
  state(c, TCP_ESTABLISHED);
  s = accept(l, NULL, NULL);
  state(s, TCP_ESTABLISHED);
  T(info_of(s).tcpi_options & 7);
  T(info_of(s).tcpi_pmtu);
  T(info_of(s).tcpi_reordering);
  T(shutdown(c, SHUT_WR));
  state(c, TCP_FIN_WAIT2);
  state(s, TCP_CLOSE_WAIT);
  close(s);
  state(c, TCP_CLOSE);
  close(c), close(l);
}

int main(void) {
  numbers(), congestion(), states();
  return 0;
}
