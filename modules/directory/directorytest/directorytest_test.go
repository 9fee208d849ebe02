package directorytest

import (
	"testing"

	"github.com/go-ldap/ldap/v3"
)

func TestMain(m *testing.M) { Main(m) }

// TestStart logs in as the portal. The twin is another password.
func TestStart(t *testing.T) {
	address, password := Start(t)
	conn, err := ldap.DialURL("ldap://" + address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const portal = "cn=portal,ou=services,o=organisation"
	if err := conn.Bind(portal, password); err != nil {
		t.Error(err)
	}
	if err := conn.Bind(portal, password+"x"); !ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
		t.Errorf("with another password: %v", err)
	}
}
