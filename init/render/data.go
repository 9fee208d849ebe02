package render

import (
	"errors"
	"fmt"
	"strings"

	"allotment/image"
	"allotment/init/plan"
	"allotment/init/secret"
)

// Names of the directory, the same on every box.
const (
	directory = "directory" // the module
	suffix    = "o=organisation"
)

// Data is what templates can use.
type Data struct {
	Organisation image.Organisation
	Settings     map[string]any
	Secrets      map[string]string // by the names of their files
	Module       Module
	Host         Addresses // the gateway, as modules see it
	Peers        map[string]Peer
	LDAP         *LDAP // nil: the module has no account in the directory, nor is it the directory
}

// Addresses are those of one end of a module's cable, without prefix lengths.
type Addresses struct{ IPv4, IPv6 string }

// Module is the module itself.
type Module struct {
	Name string
	Addresses
	MemoryMax int64 // bytes
}

// Peer is a module that may be connected to.
type Peer struct{ Host string }

// LDAP is the module's account in the directory.
type LDAP struct {
	URI, Suffix      string
	BindDN, Password string   // empty in the directory itself
	Readers          []Reader // in the directory alone: the accounts of all modules
}

// Reader is a module's account, as the directory has to make it.
type Reader struct {
	Module, DN, Password string
	Read                 []string // people, groups, collectives, offices
	Probe                bool     // has an account like a member's besides
	ProbeName            string
	ProbePassword        string
	Permissions          []string // that its probe has: all of the module's, as MODULE.NAME
}

// NewData gathers what a module's templates can use. Secrets are those of all modules, by the modules' names; that one is
// missing is an error, as an account without a password would be open to all.
func NewData(p *plan.Plan, m *plan.Module, o image.Organisation, settings map[string]any,
	secrets map[string]map[string]secret.Value) (Data, error) {
	d := Data{
		Organisation: o,
		Settings:     settings,
		Secrets:      map[string]string{},
		Module: Module{
			Name: m.Name, MemoryMax: m.MemoryMax,
			Addresses: Addresses{m.IPv4.Addr().String(), m.IPv6.Addr().String()},
		},
		Host:  Addresses{plan.HostIPv4.Addr().String(), plan.HostIPv6.Addr().String()},
		Peers: map[string]Peer{},
	}
	for name, v := range secrets[m.Name] {
		d.Secrets[name] = v.Reveal()
	}
	for _, peer := range m.Peers {
		d.Peers[peer.Module.Name] = Peer{Host: peer.Module.Name + ".internal"}
	}
	var err error
	if d.LDAP, err = newLDAP(p, m, secrets); err != nil {
		return Data{}, fmt.Errorf("cannot gather what the templates of module %q need: %w", m.Name, err)
	}
	return d, nil
}

func newLDAP(p *plan.Plan, m *plan.Module, secrets map[string]map[string]secret.Value) (*LDAP, error) {
	l := &LDAP{URI: "ldap://" + directory + ".internal", Suffix: suffix}
	if m.Name == directory {
		for _, other := range p.Modules {
			if other.Declared != nil && other.Declared.LDAP != nil {
				r, err := newReader(other, secrets[other.Name])
				if err != nil {
					return nil, err
				}
				l.Readers = append(l.Readers, r)
			}
		}
		return l, nil
	}
	if m.Declared == nil || m.Declared.LDAP == nil {
		return nil, nil
	}
	r, err := newReader(m, secrets[m.Name])
	l.BindDN, l.Password = r.DN, r.Password
	return l, err
}

func newReader(m *plan.Module, secrets map[string]secret.Value) (Reader, error) {
	r := Reader{
		Module: m.Name, DN: "cn=" + m.Name + ",ou=services," + suffix, Password: secrets["ldap"].Reveal(),
		Read: m.Declared.LDAP.Read, Probe: m.Declared.LDAP.Probe,
	}
	if r.Probe {
		r.ProbeName, r.ProbePassword = "probe-"+m.Name, secrets["probe"].Reveal()
		for _, p := range m.Declared.Permissions {
			r.Permissions = append(r.Permissions, m.Name+"."+p.Name)
		}
	}
	if r.Password == "" || r.Probe && r.ProbePassword == "" {
		return Reader{}, fmt.Errorf("module %q has no password for the directory", m.Name)
	}
	return r, nil
}

// hide takes the secrets out of an error: text/template puts values into some.
func (d Data) hide(err error) error {
	secrets := []string{}
	for _, s := range d.Secrets {
		secrets = append(secrets, s)
	}
	if d.LDAP != nil {
		for _, r := range d.LDAP.Readers {
			secrets = append(secrets, r.Password, r.ProbePassword)
		}
	}
	text := err.Error()
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[secret]")
		}
	}
	return errors.New(text)
}
