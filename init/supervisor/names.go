package supervisor

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"allotment/gateway"
	"allotment/init/plan"
)

// hostNames are the names and addresses of the box that the gateway wants certificates for.
func (s *Supervisor) hostNames() []string {
	var all []string
	if s.domain != "" {
		all = append(all, s.domain)
		if www := wwwHost(s.domain); www != "" {
			all = append(all, www)
		}
		if s.portal != nil {
			all = append(all, portalLabel+"."+s.domain)
		}
		for _, m := range s.modules {
			if m.on {
				for _, n := range hostsOf(m.plan, s.domain) {
					all = append(all, n.Host)
				}
			}
		}
	}
	for _, a := range s.net.Addresses {
		all = append(all, a.Addr().String())
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// wwwHost is the name by which people look for a domain's web site out of habit, and which leads to the domain. A domain that is
// nobody's has none.
func wwwHost(domain string) string {
	if domain == "" || strings.HasPrefix(domain, "www.") || strings.HasSuffix(domain, ".internal") {
		return ""
	}
	return "www." + domain
}

// certificateNames are, by modules, the names that modules want a certificate for.
func (s *Supervisor) certificateNames() map[string][]string {
	all := map[string][]string{}
	if s.domain == "" {
		return all
	}
	for _, m := range s.modules {
		for _, x := range m.plan.Secrets {
			if host := publicHost(x, s.domain); m.on && host != "" && !slices.Contains(all[m.plan.Name], host) {
				all[m.plan.Name] = append(all[m.plan.Name], host)
			}
		}
	}
	return all
}

// publicHost is the name of a certificate by which clients outside know the module; empty of other secrets.
func publicHost(x plan.Secret, domain string) string {
	switch {
	case x.Kind != "certificate":
		return ""
	case x.Host == "":
		return domain
	}
	return x.Host + "." + domain
}

// portalHost is the portal's own host name, once there is a certificate for it that browsers know: before, visitors who were
// sent there might find nobody.
func (s *Supervisor) portalHost() string {
	if host := portalLabel + "." + s.domain; s.portal != nil && s.certified == host {
		return host
	}
	return ""
}

// giveFolder lets the gateway keep certificates. It can reach no folder that it did not know when it was started, so one that
// was started without is started again; its sockets stay, and nobody is refused.
func (s *Supervisor) giveFolder(ctx context.Context, folder string) {
	if s.folder = folder; folder == "" {
		return
	}
	d, ok := s.gateway.job.(*daemon)
	if !ok || knowsFolder(d.config, folder) {
		return
	}
	s.perform(ctx, s.gateway, s.gateway.machine.restart(s.now()))
}

// knowsFolder tells whether the gateway was told of the folder by the file at path.
func knowsFolder(path, folder string) bool {
	var c gateway.Config
	b, err := os.ReadFile(path)
	return err == nil && json.Unmarshal(b, &c) == nil && c.Data == folder
}

// modulesFolder is where the gateway puts the certificates of modules.
func modulesFolder(state string) string {
	return filepath.Join(state, "volumes", plan.Gateway, volumeName, "modules")
}

// handed is what the gateway has put into its folder: the state of the files by which a change shows.
type handed struct {
	certified string // the portal's host name, if there is a certificate for it
	stamps    string // of the certificates of modules
}

// eventHanded tells what lies in the gateway's folder.
type eventHanded struct{ handed }

// lookAtCertificates looks beside the loop at what the gateway has got.
func (s *Supervisor) lookAtCertificates() {
	if s.folder == "" {
		return
	}
	folder, host := s.folder, portalLabel+"."+s.domain
	s.reading.Go(func() { s.send(eventHanded{readHanded(folder, host)}) })
}

func readHanded(folder, host string) handed {
	var h handed
	if _, err := os.Stat(filepath.Join(folder, host+".pem")); err == nil {
		h.certified = host
	}
	entries, err := os.ReadDir(filepath.Join(folder, "modules"))
	if err != nil {
		return h
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ".pem") {
			h.stamps += e.Name() + " " + info.ModTime().Format(time.RFC3339Nano) + "\n"
		}
	}
	return h
}

// onHanded puts new certificates into use.
func (s *Supervisor) onHanded(ctx context.Context, e eventHanded) {
	s.certified = e.certified
	if e.stamps == s.stamps {
		return
	}
	s.stamps = e.stamps
	go s.renewFiles(ctx)
}
