/* The loopback device, ports and abstract names in a new network namespace. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
static const char *err(long r) { return r < 0 ? strerrorname_np(errno) : "ok"; }
static struct sockaddr_in at(const char *a, int p) {
  struct sockaddr_in s = {AF_INET, htons(p), {inet_addr(a)}};
  return s;
}
static void look(void) {
  struct ifreq r;
  struct ifconf c;
  char room[4096];
  int s = socket(AF_INET, SOCK_DGRAM, 0), t = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in lo = at("127.0.0.1", 7777), any = at("0.0.0.0", 7778), far = at("192.0.2.1", 9);
  memset(&r, 0, sizeof r); strcpy(r.ifr_name, "lo");
  printf("flags %s", err(ioctl(s, SIOCGIFFLAGS, &r))); printf(" %#x\n", r.ifr_flags & 0xffff);
  printf("index %s", err(ioctl(s, SIOCGIFINDEX, &r))); printf(" %d\n", r.ifr_ifindex);
  printf("name %s", err(ioctl(s, SIOCGIFNAME, &r))); printf(" %s\n", r.ifr_name);
  printf("addr %s", err(ioctl(s, SIOCGIFADDR, &r)));
  printf(" %s\n", inet_ntoa(((struct sockaddr_in *)&r.ifr_addr)->sin_addr));
  printf("mtu %s", err(ioctl(s, SIOCGIFMTU, &r))); printf(" %d\n", r.ifr_mtu);
  printf("hw %s", err(ioctl(s, SIOCGIFHWADDR, &r))); printf(" %d\n", r.ifr_hwaddr.sa_family);
  strcpy(r.ifr_name, "none0"); printf("none %s\n", err(ioctl(s, SIOCGIFFLAGS, &r)));
  c.ifc_len = sizeof room; c.ifc_buf = room;
  printf("conf %s", err(ioctl(s, SIOCGIFCONF, &c))); printf(" %d\n", c.ifc_len);
  printf("send lo %s\n", err(sendto(s, "x", 1, 0, (void *)&lo, sizeof lo)));
  printf("send any %s\n", err(sendto(s, "x", 1, 0, (void *)&any, sizeof any)));
  printf("send far %s\n", err(sendto(s, "x", 1, 0, (void *)&far, sizeof far)));
  printf("connect %s\n", err(connect(t, (void *)&lo, sizeof lo)));
  printf("connect udp %s\n", err(connect(u, (void *)&lo, sizeof lo)));
  close(t); t = socket(AF_INET, SOCK_STREAM, 0);
  printf("bind lo %s\n", err(bind(t, (void *)&lo, sizeof lo)));
  printf("listen %s\n", err(listen(t, 5)));
  close(u); u = socket(AF_INET, SOCK_STREAM, 0);
  printf("bind any %s\n", err(bind(u, (void *)&any, sizeof any)));
  printf("listen %s\n", err(listen(u, 5)));
}
int main(void) {
  struct sockaddr_un n = {AF_UNIX, "\0name"};
  int before = socket(AF_INET, SOCK_STREAM, 0), one = socket(AF_UNIX, SOCK_STREAM, 0);
  int two = socket(AF_UNIX, SOCK_STREAM, 0), three, back = open("/proc/self/ns/net", O_RDONLY);
  struct ifreq r = {.ifr_name = "lo"};
  struct sockaddr_in lo = at("127.0.0.1", 7777);
  printf("unshare %s\n", err(unshare(CLONE_NEWNET)));
  look();
  three = socket(AF_INET, SOCK_DGRAM, 0);
  ioctl(three, SIOCGIFFLAGS, &r); r.ifr_flags |= IFF_UP;
  printf("up %s\n", err(ioctl(three, SIOCSIFFLAGS, &r)));
  look();
  printf("before %s\n", err(bind(before, (void *)&lo, sizeof lo)));
  printf("bind %s", err(bind(one, (void *)&n, 8)));
  printf(" listen %s\n", err(listen(one, 1)));
  printf("again %s\n", err(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&n, 8)));
  printf("connect %s\n", err(connect(two, (void *)&n, 8)));
  printf("inside %s\n", err(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&n, 8)));
  printf("back %s\n", err(setns(back, CLONE_NEWNET)));
  printf("free %s\n", err(bind(socket(AF_INET, SOCK_STREAM, 0), (void *)&lo, sizeof lo)));
  FILE *f = fopen("/proc/sys/net/ipv4/conf/lo/tag", "r+");
  int v = 7; fscanf(f, "%d", &v); printf("tag %d\n", v);
}
