package vm

import (
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/builder/tools"
	"allotment/image"
)

func TestMachineArgs(t *testing.T) {
	for _, c := range []struct {
		name      string
		options   Options
		has, lack []string
	}{
		{"bios", Options{Firmware: BIOS, Disk: "d"}, []string{"-accel tcg", "-machine q35 ", "-smp 1", "-m 1024"}, []string{"pflash"}},
		{"api", Options{Disk: "d"}, []string{"wait=off,path=/m/api.sock", "virtserialport,chardev=api,name=org.allotment.api"}, nil},
		{"uefi", Options{Disk: "d"}, []string{"OVMF_CODE_4M.fd", "unit=1,format=raw,file=/m/vars.fd"}, []string{"smm=on"}},
		{"secure", Options{Firmware: UEFISecure, Disk: "d"},
			[]string{"q35,smm=on", "property=secure,value=on", "OVMF_CODE_4M.secboot.fd"}, nil},
		{"arm64", Options{Arch: image.ARM64, Disk: "d"},
			[]string{"virt,gic-version=3", "max,pauth-impdef=on", "AAVMF_CODE.no-secboot.fd"}, []string{"q35", "VGA"}},
		{"forward", Options{Disk: "d", Forward: []int{80}}, []string{"hostfwd=tcp:127.0.0.1:0-:80"}, nil},
		{"ipv6", Options{Disk: "d", Network: IPv6Only}, []string{"user,id=net,ipv4=off,ipv6=on", "virtio-net-pci"}, nil},
		{"no network", Options{Disk: "d", Network: NoNetwork}, []string{"-nic none"}, []string{"virtio-net-pci"}},
		{"log", Options{Disk: "d", LogWrites: "a,b"}, []string{"log.filename=a,,b", "drive=logged"}, nil},
		{"kernel", Options{Kernel: "k", Initrd: "i", CommandLine: "quiet panic=5"},
			[]string{"-kernel k", "-initrd i", "-append quiet panic=5"}, []string{"drive="}},
	} {
		c.options.Tools, c.options.Dir = &tools.Root{}, "/m"
		o, err := c.options.defaults()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		line := strings.Join(machineArgs(o), " ")
		for _, want := range c.has {
			if !strings.Contains(line, want) {
				t.Errorf("%s: no %q in %s", c.name, want, line)
			}
		}
		for _, not := range c.lack {
			if strings.Contains(line, not) {
				t.Errorf("%s: %q in %s", c.name, not, line)
			}
		}
	}
}

func TestCommandLineIsQuoted(t *testing.T) {
	got := CommandLine(Options{Tools: &tools.Root{}, Dir: "/m", Kernel: "k", CommandLine: "it's here"})
	if !strings.Contains(got, `-append 'it'\''s here'`) || !strings.HasSuffix(got, "-serial mon:stdio") {
		t.Error(got)
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	good := Options{Tools: &tools.Root{}, Dir: "/m", Disk: "d"}
	for name, change := range map[string]func(*Options){
		"forward":       func(o *Options) { o.Network, o.Forward = IPv6Only, []int{80} },
		"no tools":      func(o *Options) { o.Tools = nil },
		"no folder":     func(o *Options) { o.Dir = "" },
		"nothing there": func(o *Options) { o.Disk = "" },
		"arm64 bios":    func(o *Options) { o.Arch, o.Firmware = image.ARM64, BIOS },
		"log of none":   func(o *Options) { o.Disk, o.Kernel, o.LogWrites = "", "k", "l" },
	} {
		o := good
		change(&o)
		if _, err := o.defaults(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPatience(t *testing.T) {
	for factor, want := range map[string]time.Duration{
		"": time.Minute, "3": 3 * time.Minute, "0.5": 30 * time.Second, "-1": time.Minute, "soon": time.Minute,
	} {
		t.Setenv("ALLOT_PATIENCE", factor)
		if got := Patience(time.Minute); got != want {
			t.Errorf("factor %q: %v, want %v", factor, got, want)
		}
	}
}

func TestParseForwards(t *testing.T) {
	table := "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" +
		"  TCP[HOST_FORWARD]  13       127.0.0.1 41231       10.0.2.15    80     0     0\r\n" +
		"  UDP[236 sec]       14       10.0.2.15    68        10.0.2.2    67     0     0\r\n"
	got := parseForwards(table)
	if len(got) != 1 || got[80] != "127.0.0.1:41231" {
		t.Error(got)
	}
	if slices.Contains([]string{"", "x"}, got[80]) {
		t.Error(got)
	}
}
